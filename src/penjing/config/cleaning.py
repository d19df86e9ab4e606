"""The section of the clean stage."""

from dataclasses import dataclass

from penjing.config.fields import Problems, setting


@dataclass(frozen=True)
class CleanConfig:
    """`[clean]`: documents left out before anything reads them. Absent, nothing is."""

    exact_duplicates: bool = setting(
        True, "drop texts that differ from an earlier one in white space at most"
    )
    near_duplicates: float | None = setting(
        None,
        "drop texts whose runs of 5 words agree with an earlier one's so far (Jaccard), such as "
        "0.8; default: none",
        above=0,
        at_most=1,
    )
    min_characters: int | None = setting(None, "drop shorter texts", at_least=1)
    max_characters: int | None = setting(None, "drop longer texts", at_least=1)
    quality: bool = setting(False, "drop texts that break a rule of Gopher's (arXiv:2112.11446)")
    languages: tuple[str, ...] = setting((), "keep texts in these languages only, such as en, zh")
    decontaminate: tuple[str, ...] = setting(
        (), "files of evaluation sets: drop texts that share a run of words with them"
    )
    decontamination_words: int = setting(13, "words of such a run", at_least=3, at_most=100)
    chunk_files: int | None = setting(
        None, "files of a chunk; default: as hold 256 MB of text", at_least=1, conduct=True
    )
    workers: int | None = setting(
        None, "processes that read; default: one a core", at_least=1, conduct=True
    )

    def problems(self) -> Problems:
        if (self.min_characters or 0) > (self.max_characters or 2**62):
            return [("max_characters", "it is below min_characters")]
        return []
