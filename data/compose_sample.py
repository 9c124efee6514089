"""Compose the sample reviews in data/sample/ from the phrases in phrases_en.txt and phrases_es.txt.

    python data/compose_sample.py      # rewrites data/sample/*.jsonl, byte by byte the same
    python data/compose_sample.py --output-dir /tmp/sample --seed 7

A review is about one thing (its "aspect", say a torn cover): one or two sentences say it, and the
title sums it up. Around them stand circumstances, a second aspect and a closing line, in changing
order, so that what the title needs is often not among the first three sentences. The tags behind
the phrases, explained in phrases_en.txt, keep out what does not fit or contradicts what is said.
"""

import argparse
import json
import random
import re
from pathlib import Path

HERE = Path(__file__).parent
ROWS = {"train": 4700, "validation": 340, "test": 340}  # per language
OTHER_SHARE = 0.15  # share of rows that the book filter drops
SHORT_TITLE_SHARE = 0.07  # one or two words: the chapter's second filter drops them
AGREEMENT = {  # Spanish: slot, then what stands there with a masculine and with a feminine noun
    "el": ("el", "la"), "este": ("este", "esta"), "un": ("un", "una"), "lo": ("lo", "la"),
    "o": ("o", "a"), "a": ("", "a"), "ella": ("él", "ella"),
}  # fmt: skip


class Phrase:
    """A text and its tags.

    One word of each set in ``needs`` must be true of a review; ``tells`` becomes true of it.
    """

    def __init__(self, text, tags):
        self.text = text
        clauses = [set(clause.split()) for clause in tags.split(",")]
        self.tells = {word for clause in clauses for word in clause if word[-1] in "!+-"}
        self.needs = [clause for clause in clauses if clause - self.tells]

    def fits(self, facts):
        """Whether a review of which ``facts`` are true can take this phrase."""
        signs = {
            "!": "!+-",
            "+": "!-",
            "-": "!+",
        }  # with what another phrase must not have told of the same thing
        barred = {word[:-1] + sign for word in self.tells for sign in signs[word[-1]]}
        return not barred & facts and all(clause & facts for clause in self.needs)


class Aspect(Phrase):
    """What a review is about: how many stars it gives, its titles and its sentences."""

    def __init__(self, stars, tags, weight):
        super().__init__("", tags)
        self.tells |= {"got+"} - {
            word.replace("-", "+") for word in self.tells
        }  # who judges a thing has got it
        self.stars, self.weight, self.titles, self.sentences = (
            [int(star) for star in stars.split()],
            weight,
            [],
            [],
        )


def read_phrases(language):
    """Return what phrases_<language>.txt holds: the aspects and {section: list of phrases}."""
    aspects, sections = [], {}
    for line in (HERE / f"phrases_{language}.txt").read_text(encoding="utf-8").splitlines():
        text, _, tags = line.partition(" # ")
        if line.startswith("@") and "|" in line:
            _, stars, tags, *often = line.split(" | ")
            aspects.append(Aspect(stars, tags, 1 + len(often)))
        elif line.startswith("@"):
            section = sections[line[1:]] = []
        elif line.startswith("= "):
            aspects[-1].titles.append(Phrase(text[2:], tags))
        elif line.startswith("- "):
            aspects[-1].sentences.append(Phrase(text[2:], tags))
        elif line and not line.startswith("#"):
            section.append(Phrase(text, tags))
    return aspects, sections


def draw_thing(rng, aspect, nouns):
    """Return a noun that fits the aspect, the category of its review, and what is true of it."""
    things = []
    for noun in nouns:
        name, kinds, forms = (part.split() for part in noun.text.split(" | "))
        things += [(" ".join(name), kinds, form) for form in forms if aspect.fits({form, *kinds})]
    name, kinds, form = rng.choices(things, [3 if form == "ebook" else 7 for _, _, form in things])[
        0
    ]
    digital = form != "print" and rng.random() < 0.8
    category = kinds[0] if form == "item" else "digital_ebook_purchase" if digital else "book"
    return name, category, {form, *kinds}


def draw_slots(rng, sections, noun):
    """Return the words that stay the same in a review; Spanish nouns end in " m" or " f"."""
    slots = {
        name: rng.choice(sections[f"{name}s"]).text
        for name in ("kid", "relative", "surname", "author")
    }
    slots |= {"age": rng.randint(3, 6), "k": noun}
    if noun.endswith((" m", " f")):
        slots["k"], gender = noun.rsplit(" ", 1)
        slots |= {slot: words[gender == "f"] for slot, words in AGREEMENT.items()}
        slots["kid"], gender = slots["kid"].rsplit(" ", 1)
        slots |= {
            "ko": "oa"[gender == "f"],
            "so": rng.choice("oa"),
        }  # the endings for the child and for who writes
    return slots


def draw(rng, phrases, facts, count=1):
    """Draw up to ``count`` phrases that fit one another and the facts; add what they tell."""
    drawn = []
    while len(drawn) < count and (
        fitting := [p for p in phrases if p not in drawn and p.fits(facts)]
    ):
        drawn.append(rng.choice(fitting))
        facts |= drawn[-1].tells
    return drawn


def fill(rng, phrase, slots, chosen):
    """Pick one of each [a|b], as in ``chosen`` if the review has picked there.

    Also fill the {slots} and tidy the spaces.
    """
    text = phrase.text
    while choice := re.search(r"\[([^\[\]]*)\]", text):
        picked = chosen.setdefault(choice[1], rng.choice(choice[1].split("|")))
        text = text[: choice.start()] + picked + text[choice.end() :]
    text = re.sub(r"\s+", " ", text.format(**slots)).strip()
    if "el" not in slots:  # English
        text = re.sub(r"\b([Aa]) (?=[aeio]|E)", r"\1n ", text)
    return capitalize(re.sub(r" ([,.:])", r"\1", text))


def compose(rng, language, aspects, sections):
    """Return one review as a dictionary of stars, body, title, language and category."""
    other = rng.random() < OTHER_SHARE
    group = [aspect for aspect in aspects if other == ({"item"} in aspect.needs)]
    aspect = rng.choices(group, [aspect.weight for aspect in group])[0]
    noun, category, facts = draw_thing(rng, aspect, sections["nouns"])
    stars = rng.choice(aspect.stars)
    mood = "-" if stars < 3 else "0" if stars == 3 else "+"
    facts |= aspect.tells | {str(stars)}
    slots, chosen = draw_slots(rng, sections, noun), {}

    def say(phrases):
        return [fill(rng, phrase, slots, chosen) for phrase in phrases]

    main = say(draw(rng, aspect.sentences, facts, rng.choice([1, 2, 2])))
    link, aside = None, []
    if mood == "+" and rng.random() < 0.15:
        stars = 4
        facts = facts - {"5"} | {"4"}
        link, aside = rng.choice(sections["but"]), say(draw(rng, sections["flaws"], facts))
    elif rng.random() < 0.4:
        facts.add("aside+")
        alike = [a for a in group if a is not aspect and a.fits(facts) and stars in a.stars]
        for second in draw(rng, alike, facts):
            link, aside = (
                rng.choice([None, None, *sections["and"]]),
                say(draw(rng, second.sentences, facts)),
            )
    if aside and link:
        if not aside[0].startswith(("I ", "Dr.", slots["author"])):
            aside[0] = re.sub(r"\w", lambda letter: letter[0].lower(), aside[0], count=1)
        aside[0] = capitalize(f"{link.text} {aside[0]}")
    context = say(draw(rng, sections["about"], facts)) if rng.random() < 0.3 else []
    if not other:
        context += say(draw(rng, sections["context"], facts, rng.choice([0, 0, 0, 1, 1, 2])))
    close = say(draw(rng, sections["close" + mood], facts)) if rng.random() < 0.45 else []

    order = rng.random()  # what the title sums up stands first, in the middle or late
    if order < 0.35:
        sentences = main + (aside + context if link else context + aside) + close
    elif order < 0.75 or link:
        sentences = context + main + aside + close
    else:
        sentences = context + aside + main + close
    body = " ".join(sentences[:6])

    if rng.random() < SHORT_TITLE_SHARE:
        title = say(draw(rng, sections["short" + mood], facts))[0]
    else:
        said = words(body)
        drafts = [
            fill(rng, title, slots, dict(chosen))
            for title in aspect.titles * 4
            if title.fits(facts)
        ]
        title = max(drafts, key=lambda draft: len(words(draft) & said) / (len(words(draft)) + 1))
    habit = rng.random()  # how people type
    if habit < 0.03:
        body, title = body.lower(), title.lower()
    elif habit < 0.07:
        body, title = body.rstrip(".!") + "!!!", title + "!"
    elif habit < 0.12:
        body, title = body.rstrip("."), title + "."
    review = {"stars": stars, "review_body": body, "review_title": title}
    return review | {"language": language, "product_category": category}


def words(text):
    """Return the beginnings of the longer words, so that "recommended" and "recommend" are one."""
    return {word[:5] for word in re.findall(r"\w{4,}", text.lower())}


def capitalize(sentence):
    """Upper-case the first letter, behind an opening mark such as ¡ too."""
    return re.sub(r"^(\W*)(\w)", lambda m: m[1] + m[2].upper(), sentence, count=1)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output-dir", type=Path, default=HERE / "sample")
    parser.add_argument("--seed", type=int, default=42)
    args = parser.parse_args()

    args.output_dir.mkdir(parents=True, exist_ok=True)
    seen = set()  # no body occurs twice, in whatever split
    for language in ("en", "es"):
        aspects, sections = read_phrases(language)
        for split, count in ROWS.items():
            rng = random.Random(f"{args.seed} {language} {split}")
            lines = []
            while len(lines) < count:
                review = compose(rng, language, aspects, sections)
                if review["review_body"].lower() in seen:
                    continue
                seen.add(review["review_body"].lower())
                ids = {
                    "review_id": f"{language}_{rng.randrange(10**7):07d}",
                    "product_id": f"product_{language}_{rng.randrange(10**4):04d}",
                    "reviewer_id": f"reviewer_{language}_{rng.randrange(10**4):04d}",
                }
                lines.append(
                    json.dumps(ids | review, ensure_ascii=False, separators=(",", ":")) + "\n"
                )
            path = args.output_dir / f"{language}_{split}.jsonl"
            path.write_text("".join(lines), encoding="utf-8", newline="\n")
            print(f"{path}: {count:,} rows")


if __name__ == "__main__":
    main()
