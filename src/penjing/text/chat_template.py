"""The chat template in Jinja, for Hugging Face and every server that reads it.

Penjing itself renders with `text.template`; a test shows that both give the same ids.
"""

CHAT_TEMPLATE = r"""{%- for message in messages %}
{%- if message.role == 'tool' %}
{%- if loop.first or messages[loop.index0 - 1].role != 'tool' %}{{ '<|im_start|>user' }}{% endif %}
{%- else %}{{ '<|im_start|>' + message.role }}{% endif %}
{%- if message.content is string %}
{%- if message.content or not message.tool_calls %}
{%- if message.role == 'tool' %}{{ '\n<tool_response>\n' + message.content + '\n</tool_response>' }}
{%- else %}{{ '\n' + message.content }}{% endif %}
{%- endif %}
{%- elif message.content %}
{%- for part in message.content %}
{%- if part.type == 'tool_call' %}{{ '\n<tool_call>\n' + part.text + '\n</tool_call>' }}
{%- elif message.role == 'tool' %}{{ '\n<tool_response>\n' + part.text + '\n</tool_response>' }}
{%- else %}{{ '\n' + part.text }}{% endif %}
{%- endfor %}
{%- endif %}
{%- for call in message.tool_calls or [] %}
{%- if call.function %}{% set call = call.function %}{% endif %}
{%- set arguments = call.arguments %}
{%- if arguments is not string %}{% set arguments = arguments | tojson %}{% endif %}
{{- '\n<tool_call>\n{"name": ' + call.name | tojson + ', "arguments": ' + arguments }}
{{- '}\n</tool_call>' }}
{%- endfor %}
{%- if message.role != 'tool' or loop.last or messages[loop.index0 + 1].role != 'tool' %}
{{- '<|im_end|>\n' }}
{%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}
"""
