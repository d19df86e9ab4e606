// Takes one string field out of every line of JSON, as `json.loads` would, without Python strings.
//
// A line that this parser does not take is only numbered: what is wrong with it, and whether it is
// wrong at all, is said by the caller, who reads it again at leisure. So it may refuse more than
// `json.loads` does, and must never take what that refuses or reads otherwise.
#ifdef __SSE2__
#include <emmintrin.h>
#endif

#include "bindings.hpp"

namespace penjing {
namespace {

constexpr int kDepth = 200;              // Python's own parser gives up near 1,000
constexpr ptrdiff_t kNumberBytes = 1000;  // Python refuses integers of over 4,300 digits

// Whether a byte stops a plain run of a string: a quote, an escape, a control or not ASCII.
inline bool stops(uint8_t byte) { return byte < 0x20 || byte >= 0x80 || byte == '"' || byte == '\\'; }

inline const uint8_t* plain_end(const uint8_t* at, const uint8_t* end) {
#ifdef __SSE2__
    for (; end - at >= 16; at += 16) {
        const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(at));
        const auto is = [bytes](char byte) { return _mm_cmpeq_epi8(bytes, _mm_set1_epi8(byte)); };
        const __m128i odd = _mm_cmplt_epi8(bytes, _mm_set1_epi8(' '));  // signed: not ASCII as well
        const int found = _mm_movemask_epi8(_mm_or_si128(odd, _mm_or_si128(is('"'), is('\\'))));
        if (found) return at + __builtin_ctz(unsigned(found));
    }
#endif
    while (at != end && !stops(*at)) ++at;
    return at;
}

class LineParser {
   public:
    LineParser(const std::string& field, std::vector<uint8_t>& out) : field_(field), out_(out) {}

    // Appends the field's text; false, with nothing appended, where the line is refused.
    bool parse(const uint8_t* at, const uint8_t* end) {
        at_ = at;
        end_ = end;
        start_ = out_.size();
        has_text_ = false;
        space();
        if (object() && (space(), at_ == end_) && has_text_) return true;
        out_.resize(start_);
        return false;
    }

   private:
    void space() {
        while (at_ != end_ && (*at_ == ' ' || *at_ == '\t' || *at_ == '\r')) ++at_;
    }

    bool take(uint8_t byte) {
        if (at_ == end_ || *at_ != byte) return false;
        ++at_;
        return true;
    }

    bool object() {
        if (!take('{')) return false;
        space();
        if (take('}')) return true;
        do {
            space();
            key_.clear();
            if (!string(&key_)) return false;
            space();
            if (!take(':')) return false;
            space();
            if (!(key_ == field_ ? text() : value(1))) return false;
            space();
        } while (take(','));
        return take('}');
    }

    // The field's value; of several the last one counts.
    bool text() {
        out_.resize(start_);
        has_text_ = false;
        if (at_ == end_ || *at_ != '"' || !string(&out_)) return false;
        for (size_t place = start_; place < out_.size(); ++place) {
            // Text of white space alone is refused; unusual space is left to the caller as well.
            if (out_[place] > ' ' && out_[place] < 0x7F) has_text_ = true;
            if (has_text_ || out_[place] >= 0xE3) break;
        }
        if (!has_text_) has_text_ = visible(out_.data() + start_, out_.data() + out_.size());
        return has_text_;
    }

    static bool visible(const uint8_t* at, const uint8_t* end) {
        while (at != end) {
            const Decoded found = decode(at, end);
            const uint8_t classes = class_table()[found.point];
            if (!(classes & kSpace) && found.point > 0x20) return true;
            at += found.size;
        }
        return false;
    }

    bool value(int depth) {
        if (at_ == end_ || depth > kDepth) return false;
        switch (*at_) {
            case '"': return string(static_cast<std::string*>(nullptr));
            case '{': return members(depth);
            case '[': return elements(depth);
            case 't': return word("true");
            case 'f': return word("false");
            case 'n': return word("null");
            case 'N': return word("NaN");
            case 'I': return word("Infinity");
            default: return number();
        }
    }

    bool members(int depth) {
        ++at_;
        space();
        if (take('}')) return true;
        do {
            space();
            if (!string(static_cast<std::string*>(nullptr))) return false;
            space();
            if (!take(':')) return false;
            space();
            if (!value(depth + 1)) return false;
            space();
        } while (take(','));
        return take('}');
    }

    bool elements(int depth) {
        ++at_;
        space();
        if (take(']')) return true;
        do {
            space();
            if (!value(depth + 1)) return false;
            space();
        } while (take(','));
        return take(']');
    }

    bool word(std::string_view wanted) {
        if (size_t(end_ - at_) < wanted.size()) return false;
        if (std::string_view(reinterpret_cast<const char*>(at_), wanted.size()) != wanted) return false;
        at_ += wanted.size();
        return true;
    }

    bool digits() {
        const uint8_t* first = at_;
        while (at_ != end_ && *at_ >= '0' && *at_ <= '9') ++at_;
        return at_ != first;
    }

    bool number() {
        const uint8_t* first = at_;
        if (take('-') && at_ != end_ && *at_ == 'I') return word("Infinity");
        if (!take('0') && !digits()) return false;
        if (take('.') && !digits()) return false;
        if (take('e') || take('E')) {
            if (!take('+')) take('-');
            if (!digits()) return false;
        }
        return at_ - first <= kNumberBytes;
    }

    // A string; `out` gets its text, or is null.
    template <class Out>
    bool string(Out* out) {
        if (!take('"')) return false;
        for (;;) {
            const uint8_t* first = at_;
            at_ = plain_end(at_, end_);
            append(out, first, at_);
            if (at_ == end_ || *at_ < 0x20) return false;
            if (take('"')) return true;
            if (*at_ == '\\') {
                if (!escape(out)) return false;
                continue;
            }
            first = at_;
            while (at_ != end_ && *at_ >= 0x80) {
                const Decoded found = decode(at_, end_);
                if (found.point == kReplacement && !replacement(at_, found.size)) return false;
                at_ += found.size;
            }
            append(out, first, at_);
        }
    }

    // U+FFFD itself, and not what stands for invalid bytes.
    static bool replacement(const uint8_t* at, uint32_t size) {
        return size == 3 && at[0] == 0xEF && at[1] == 0xBF && at[2] == 0xBD;
    }

    template <class Out>
    static void append(Out* out, const uint8_t* first, const uint8_t* last) {
        if (out) out->insert(out->end(), first, last);
    }

    template <class Out>
    bool escape(Out* out) {
        ++at_;
        if (at_ == end_) return false;
        const uint8_t kind = *at_++;
        constexpr std::string_view kinds = "\"\\/bfnrt", meanings = "\"\\/\b\f\n\r\t";
        if (kind != 'u') {
            const size_t place = kinds.find(char(kind));
            if (place == kinds.npos) return false;
            if (out) out->push_back(typename Out::value_type(meanings[place]));
            return true;
        }
        uint32_t point = 0, low = 0;
        if (!hexadecimal(point)) return false;
        if (point >= 0xDC00 && point < 0xE000) return false;  // the second half of a pair, alone
        if (point >= 0xD800 && point < 0xDC00) {
            if (!take('\\') || !take('u') || !hexadecimal(low) || low < 0xDC00 || low >= 0xE000) return false;
            point = 0x10000 + ((point - 0xD800) << 10) + (low - 0xDC00);
        }
        if (out) encode(*out, point);
        return true;
    }

    bool hexadecimal(uint32_t& value) {
        if (end_ - at_ < 4) return false;
        for (int digit = 0; digit < 4; ++digit) {
            const uint8_t byte = *at_++;
            const uint8_t lower = byte | 0x20;
            if (byte >= '0' && byte <= '9') {
                value = value << 4 | uint32_t(byte - '0');
            } else if (lower >= 'a' && lower <= 'f') {
                value = value << 4 | uint32_t(lower - 'a' + 10);
            } else {
                return false;
            }
        }
        return true;
    }

    template <class Out>
    static void encode(Out& out, uint32_t point) {
        const auto put = [&](uint32_t byte) { out.push_back(typename Out::value_type(byte)); };
        if (point < 0x80) return put(point);
        if (point < 0x800) {
            put(0xC0 | point >> 6);
        } else if (point < 0x10000) {
            put(0xE0 | point >> 12);
            put(0x80 | (point >> 6 & 0x3F));
        } else {
            put(0xF0 | point >> 18);
            put(0x80 | (point >> 12 & 0x3F));
            put(0x80 | (point >> 6 & 0x3F));
        }
        put(0x80 | (point & 0x3F));
    }

    const std::string& field_;
    std::vector<uint8_t>& out_;
    std::string key_;
    const uint8_t *at_ = nullptr, *end_ = nullptr;
    size_t start_ = 0;
    bool has_text_ = false;
};

bool blank(const uint8_t* at, const uint8_t* end) {
    while (at != end && (*at == ' ' || (*at >= '\t' && *at <= '\r'))) ++at;
    return at == end;
}

auto json_lines(const nb::bytes& data, const std::string& field) {
    std::vector<uint8_t> text;
    std::vector<int64_t> ends, lines, bad;
    const auto* at = reinterpret_cast<const uint8_t*>(data.c_str());
    const uint8_t* stop = at + data.size();
    {
        nb::gil_scoped_release unlocked;
        text.reserve(data.size());
        LineParser parser(field, text);
        for (int64_t number = 1; at != stop; ++number) {
            const auto* found = static_cast<const uint8_t*>(std::memchr(at, '\n', size_t(stop - at)));
            const uint8_t* end = found ? found : stop;
            if (parser.parse(at, end)) {
                ends.push_back(int64_t(text.size()));
                lines.push_back(number);
            } else if (!blank(at, end)) {
                bad.push_back(number);
            }
            at = found ? found + 1 : stop;
        }
    }
    std::vector<std::pair<int64_t, std::string>> refused;
    for (const int64_t number : bad) refused.emplace_back(number, "not taken: no JSON object with such a text");
    return std::make_tuple(array_of(std::move(text)), array_of(std::move(ends)), array_of(std::move(lines)), refused);
}

}  // namespace

void bind_json_lines(nb::module_& module) {
    module.def("json_lines", &json_lines, nb::arg("data"), nb::arg("field"));
}

}  // namespace penjing
