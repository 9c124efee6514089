"""Compose the sample reviews in data/sample/ from the phrases in phrases_en.txt and phrases_es.txt.

    python data/compose_sample.py                # rewrites data/sample/*.jsonl, byte for byte the same
    python data/compose_sample.py --output-dir /tmp/sample --seed 7

A review is about one thing (its "aspect", say a torn cover): one or two sentences say it, and the
title sums it up. Around them stand circumstances, a second aspect and a closing line, in changing
order, so that what the title needs is often not among the first three sentences.
"""

import argparse
import json
import random
import re
from pathlib import Path

HERE = Path(__file__).parent
ROWS = {"train": 4700, "validation": 340, "test": 340}  # per language
OTHER_SHARE = 0.14  # share of rows that the book filter drops
BOOKS = {"book", "digital_ebook_purchase"}
FILES = {"audio", "app"}  # kinds that are never printed
SHORT_TITLE_SHARE = 0.07  # one or two words: the chapter's second filter drops them


def read_phrases(language):
    """Return the sections of phrases_<language>.txt: aspects, kinds, items and the loose lines."""
    aspects, sections = {}, {}
    for line in (HERE / f"phrases_{language}.txt").read_text(encoding="utf-8").splitlines():
        if line.startswith("@") and "|" in line:
            name, stars, channel, *kinds = (part.strip() for part in line[1:].split("|"))
            section = aspects[name] = {"stars": [int(star) for star in stars.split()], "channel": channel}
            section |= {"kinds": set(kinds[0].split()) if kinds else set(), "weight": 1 + ("often" in kinds)}
            section |= {"titles": [], "sentences": []}
        elif line.startswith("@"):
            section = sections[line[1:]] = []
        elif line.startswith("= "):
            section["titles"].append(line[2:])
        elif line.startswith("- "):
            section["sentences"].append(line[2:])
        elif line and not line.startswith("#"):
            section.append(line)
    return aspects, sections


def fill(rng, phrase, slots):
    """Pick one of each [a|b], fill the {slots} and tidy the spaces."""
    while choice := re.search(r"\[([^\[\]]*)\]", phrase):
        phrase = phrase[: choice.start()] + rng.choice(choice[1].split("|")) + phrase[choice.end() :]
    phrase = re.sub(r"\s+", " ", phrase.format(**slots)).strip()
    if "El" not in slots:  # English
        phrase = re.sub(r"\b([Aa]) (?=[aeio]|E)", r"\1n ", phrase)
    return re.sub(r" ([,.:])", r"\1", phrase)


def make_slots(rng, language, sections, noun):
    """Return the words that stay the same throughout one review; Spanish nouns end in " m" or " f"."""
    slots = {name: rng.choice(sections[f"{name}s"]) for name in ("kid", "relative")} | {"age": rng.randint(3, 9)}
    slots |= {name: rng.choice(sections[f"{name}s"]) for name in ("surname", "author")} | {"k": noun}
    if language == "es":
        slots["kid"], gender = slots["kid"].rsplit(" ", 1)
        slots["ko"] = "o" if gender == "m" else "a"
        slots["k"], gender = noun.rsplit(" ", 1)
        masculine = ["el", "El", "este", "Este", "un", "Un", "o", "lo", "Lo", "a", "ella", "so"]
        words = ["el", "El", "este", "Este", "un", "Un", "o", "lo", "Lo", "", "él"] if gender == "m" else (
            ["la", "La", "esta", "Esta", "una", "Una", "a", "la", "La", "a", "ella"])  # fmt: skip
        slots |= dict(zip(masculine, [*words, rng.choice("oa")], strict=True))
    return slots


def compose(rng, language, aspects, sections):
    """Return one review as a dictionary of stars, body, title and category."""
    if rng.random() < OTHER_SHARE:
        category, noun = (part.strip() for part in rng.choice(sections["items"]).split("|"))
        names = [name for name, aspect in aspects.items() if aspect["channel"] == "other"]
        name = rng.choice(names)
    else:
        weights = {name: aspect["weight"] for name, aspect in aspects.items() if aspect["channel"] != "other"}
        name = rng.choices(list(weights), weights.values())[0]
        channel, fitting = aspects[name]["channel"], aspects[name]["kinds"]
        nouns = [[part.strip() for part in line.split("|")] for line in sections["kinds"]]
        nouns = [(noun, kind) for noun, kind in nouns if fitting & {kind, "any"}]
        nouns = [(noun, kind) for noun, kind in nouns if channel != "print" or kind not in FILES]
        noun, kind = rng.choice(nouns)
        digital = channel == "ebook" or kind in FILES or (channel == "both" and rng.random() < 0.3)
        category = "digital_ebook_purchase" if digital and rng.random() < 0.8 else "book"
        names = [
            name
            for name, aspect in aspects.items()
            if aspect["channel"] in {"both", "ebook" if digital else "print"} and aspect["kinds"] & {kind, "any"}
        ]
    aspect = aspects[name]
    slots = make_slots(rng, language, sections, noun)
    stars = rng.choice(aspect["stars"])
    mood = "-" if stars < 3 else "0" if stars == 3 else "+"

    main = rng.sample(aspect["sentences"], rng.choice([1, 2, 2]))
    context = []
    if category in BOOKS:
        about = [line.split(" | ")[1] for line in sections["about"] if line.split(" | ")[0] == kind]
        context = rng.sample(sections["context"], rng.choice([0, 0, 0, 1, 1, 2]))
        context = ([rng.choice(about)] if rng.random() < 0.3 else []) + context
    second = rng.choice([other for other in names if other != name])
    second_mood = "-" if max(aspects[second]["stars"]) < 3 else "+" if min(aspects[second]["stars"]) > 3 else "0"
    aside = []
    if second_mood == mood and rng.random() < 0.4:
        aside = [rng.choice(sections["and"]) if rng.random() < 0.3 else ""]
    elif mood == "+" and second_mood == "-" and rng.random() < 0.35:
        aside = [rng.choice(sections["but"])]
        stars = 4
    if aside:
        sentence = fill(rng, rng.choice(aspects[second]["sentences"]), slots)
        if aside[0] and sentence.split()[0] not in {"I", "Dr.", "Mr."}:
            sentence = re.sub(r"\w", lambda letter: letter[0].lower(), sentence, count=1)
        aside = [aside[0] + sentence]
    close = [rng.choice(sections["close" + mood])] if rng.random() < 0.45 else []

    order = rng.random()  # what the title sums up stands first, in the middle or late
    if order < 0.35 or (aside and aside[0].startswith(tuple(sections["but"]))):
        sentences = main + context + aside + close
    elif order < 0.75:
        sentences = context + main + aside + close
    else:
        sentences = context + aside + main + close
    body = " ".join(capitalize(fill(rng, sentence, slots)) for sentence in sentences[:6])

    draw = rng.random()
    if draw < SHORT_TITLE_SHARE:
        title = fill(rng, rng.choice(sections["short" + mood]), slots)
    else:
        said = words(body)
        drafts = [fill(rng, rng.choice(aspect["titles"]), slots) for _ in range(12)]
        title = capitalize(max(drafts, key=lambda draft: len(words(draft) & said) / (len(words(draft)) + 1)))
    habit = rng.random()  # how people type
    if habit < 0.03:
        body, title = body.lower(), title.lower()
    elif habit < 0.07:
        body, title = body.rstrip(".") + "!!!", title + "!"
    elif habit < 0.12:
        body, title = body.rstrip("."), title + "."
    return {"stars": stars, "review_body": body, "review_title": title, "product_category": category}


def words(text):
    """Return the beginnings of the longer words, so that "recommended" and "recommend" are one."""
    return {word[:5] for word in re.findall(r"\w{4,}", text.lower())}


def capitalize(sentence):
    """Upper-case the first letter, behind an opening mark such as ¡ too."""
    return re.sub(r"^(\W*)(\w)", lambda m: m[1] + m[2].upper(), sentence, count=1)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
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
                number = f"{rng.randrange(10**7):07d}"
                row = {
                    "review_id": f"{language}_{number}",
                    "product_id": f"product_{language}_{rng.randrange(10**4):04d}",
                    "reviewer_id": f"reviewer_{language}_{rng.randrange(10**4):04d}",
                    "stars": review["stars"],
                    "review_body": review["review_body"],
                    "review_title": review["review_title"],
                    "language": language,
                    "product_category": review["product_category"],
                }
                lines.append(json.dumps(row, ensure_ascii=False, separators=(",", ":")) + "\n")
            path = args.output_dir / f"{language}_{split}.jsonl"
            path.write_text("".join(lines), encoding="utf-8", newline="\n")
            print(f"{path}: {count:,} rows")


if __name__ == "__main__":
    main()
