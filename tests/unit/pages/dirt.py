"""Ways in which web pages are spoilt, applied to a real page with a seed, and the drop reasons that are right for each."""

import random
import re
import unicodedata
from collections.abc import Callable, Mapping, Sequence

from xl.pages.language import SCRIPTS, UNSPACED
from xl.pages.scripts import count_characters, density

Pages = Mapping[str, Sequence[str]]
Dirt = Callable[[str, str, Pages, random.Random], str | None]
"""(text, its language, all pages by language, random numbers) to the spoilt text; None where this dirt does not apply."""


def _words(text: str, lang: str) -> list[str]:
    """Words, or pieces of four characters where there are no spaces."""
    if lang in UNSPACED:
        plain = "".join(text.split())
        return [plain[i : i + 4] for i in range(0, len(plain), 4)]
    return text.split()


def _other_page(lang: str, pages: Pages, rng: random.Random) -> str:
    other = rng.choice([other for other in sorted(pages) if other != lang])
    return rng.choice([page for page in pages[other] if len(page) >= 200])


def _read_sloppily(data: bytes, encoding: str) -> str:
    return "".join(bytes([byte]).decode(encoding, "replace") if byte not in b"\x81\x8d\x8f\x90\x9d" else chr(byte) for byte in data)


def utf8_misread(text: str, lang: str, pages: Pages, rng: random.Random) -> str | None:
    """UTF-8 read as Latin-1 or cp1252, sometimes twice over. Nearly plain ASCII suffers nothing worth a drop."""
    if sum(character > "\x7f" for character in text) < max(8, 0.01 * len(text)):
        return None
    encoding = rng.choice(["latin-1", "cp1252"])
    spoilt = _read_sloppily(text.encode(), encoding)
    return _read_sloppily(spoilt.encode(), encoding) if rng.random() < 0.25 else spoilt


# Keys of the Hindi font Kruti Dev for the letters that it shares with Unicode; enough to look like the real thing.
_DEVANAGARI = "कखगघचछजझटठडढणतथदधनपफबभमयरलवशषसहािीुूेैोौंँ्अआइईउऊए"
_KEYS = "d [k x ?k p N t > V B M < .k r Fk n /k u i Q c Hk e ; j y o 'k \"k l g k f h q w s S ks kS a ¡ ~ v vk b bZ m Å ,"
_KRUTI_DEV: dict[str, str] = dict(zip(_DEVANAGARI, _KEYS.split(" "), strict=True))
_CODE_PAGES = {"tr": "cp1254", "hu": "cp1250", "lt": "cp1257", "mt": "iso8859_3", "th": "tis_620", "zh": "gb18030"}


def code_page_misread(text: str, lang: str, pages: Pages, rng: random.Random) -> str | None:
    """The language's old code page read as Latin-1, or the key codes of an old Hindi font."""
    if lang == "hi":
        return "".join(_KRUTI_DEV.get(character, character) for character in text)
    return text.encode(_CODE_PAGES[lang], "ignore").decode("latin-1") if lang in _CODE_PAGES else None


def bytes_lost(text: str, lang: str, pages: Pages, rng: random.Random) -> str | None:
    """One character in fifty turned into U+FFFD."""
    return "".join("\ufffd" if rng.random() < 0.02 or i % 97 == 0 else character for i, character in enumerate(text))


def other_language(text: str, lang: str, pages: Pages, rng: random.Random) -> str | None:
    """A whole page of another language under this page's label."""
    return _other_page(lang, pages, rng)


def _halves(text: str) -> tuple[str, str]:
    lines = text.split("\n")
    if len(lines) == 1:
        return text[: len(text) // 2], text[len(text) // 2 :]
    return "\n".join(lines[: len(lines) // 2]), "\n".join(lines[len(lines) // 2 :])


def half_other_language(text: str, lang: str, pages: Pages, rng: random.Random) -> str | None:
    """The first half of the page, and as much text of another language (none of pages whose half has less than 100 characters)."""
    first = _halves(text)[0]
    other = rng.choice([code for code in sorted(pages) if code != lang])
    second = ""
    num_chars = int(len(first) * density(lang) / density(other))
    while len(second) < num_chars:
        second += _halves(rng.choice(pages[other]))[1] + "\n"
    return f"{first}\n{second[:num_chars]}" if len(first) * density(lang) >= 100 else None


def a_few_words(text: str, lang: str, pages: Pages, rng: random.Random) -> str | None:
    """Only the beginning is left."""
    return (" " if lang not in UNSPACED else "").join(_words(text, lang)[: rng.randint(3, 8)])


def lines_repeated(text: str, lang: str, pages: Pages, rng: random.Random) -> str | None:
    """One of the page's sentences or lines after each of the others, at least as much text as these."""
    parts = [part for part in re.split(r"\n|(?<=[.!?।。])\s*", text) if part.strip()]
    repeated = max(parts, key=len)[:300]
    return "\n".join(line for part in parts for line in (part, *[repeated] * max(2, len(part) // len(repeated) + 1)))


def words_repeated(text: str, lang: str, pages: Pages, rng: random.Random) -> str | None:
    """Keyword spam: one of the page's words again and again, alone or between the others."""
    words = _words(text, lang)
    own = [word for word in words if set(count_characters(word).letters) <= SCRIPTS[lang] and not count_characters(word).symbol_ratio(1.0)]
    word = max(rng.sample(own, min(10, len(own))), key=len)
    joint = " " if lang not in UNSPACED else ""
    if rng.random() < 0.5:
        return joint.join([word] * max(60, len(words)))
    return joint.join(piece for other in words for piece in ((other, word) if lang not in UNSPACED else (other, word * 4)))


def symbols_strewn(text: str, lang: str, pages: Pages, rng: random.Random) -> str | None:
    """Half of the letters replaced by symbols, or three symbols after each third of them."""
    soup = "★☆♥►◄●○■□◆▲▼#*@%&+=_~^<>[]{}|\\/0123456789"
    if rng.random() < 0.5:
        return "".join(rng.choice(soup) if c.isalpha() and rng.random() < 0.6 else c for c in text)
    return "".join(c + "".join(rng.choices(soup, k=6)) if rng.random() < 0.5 else c for c in text)


def nul_bytes(text: str, lang: str, pages: Pages, rng: random.Random) -> str | None:
    """NULs at up to twenty places."""
    places = {rng.randrange(len(text)) for _ in range(rng.randint(1, 20))}
    return "".join(c + "\0" if i in places else c for i, c in enumerate(text))


def without_end(text: str, lang: str, pages: Pages, rng: random.Random) -> str | None:
    """Far too long: all pages of the language in one."""
    whole = "\n".join(rng.sample(list(pages[lang]), len(pages[lang])))
    return whole * (120_000 // len(whole) + 1)


_LOOK_ALIKES = str.maketrans("aeopcxyiABCEHKMOPTX", "аеорсхуіАВСЕНКМОРТХ")
_CYRILLIC = str.maketrans("abcdefghijklmnopqrstuvwxyz", "абкдефгхийклмнопкрстувукыз")
_PINYIN = "ba bei cheng da dao de dian fa guo hao he hua ji jia jin kai li liu ma mian neng ping qi ren shi shui tian wo xin yang zhong"
_SYLLABLES: tuple[str, ...] = tuple(re.findall(r"\w+", _PINYIN))


def _romanised(character: str) -> str:
    """A Latin spelling out of the letter's Unicode name ("DEVANAGARI LETTER KA"), made up for Chinese."""
    if "\u4e00" <= character <= "\u9fff":
        return " " + _SYLLABLES[ord(character) % len(_SYLLABLES)]
    if character < "\u0370" or not unicodedata.name(character, "").strip():
        return character
    if unicodedata.category(character)[0] not in "LM":
        return character
    word = unicodedata.name(character).split()[-1].lower()
    silent = {"virama": "", "anusvara": "n", "candrabindu": "n", "nukta": ""}
    return silent.get(word, word[:2])


def wrong_letters(text: str, lang: str, pages: Pages, rng: random.Random) -> str | None:
    """Latin text with Cyrillic look-alikes or wholly in Cyrillic; other scripts written in Latin letters."""
    if lang in {"hi", "th", "zh"}:
        return "".join(map(_romanised, text))
    if rng.random() < 0.5:
        return text.translate(_LOOK_ALIKES)
    plain = "".join(c for c in unicodedata.normalize("NFD", text.lower()) if not unicodedata.combining(c))
    return plain.translate(_CYRILLIC)


_SITE_LINES = {
    "de": "Wir verwenden Cookies, um Ihnen das beste Nutzungserlebnis zu bieten.|Passwort vergessen? Hier anmelden|"
    "Teilen Drucken Kommentare (3)|© 2021 Verlag und Autoren. Alle Rechte vorbehalten.",
    "en": "We use cookies to make this site work better for you.|Forgot your password? Register for free|Share Tweet Email Print|"
    "© 2021 The publishers. All rights reserved.",
    "es": "Esta web utiliza cookies propias y de terceros. Si continúa navegando acepta su uso.|¿Olvidaste tu contraseña?|"
    "Compartir Twitter Facebook WhatsApp|© 2021. Todos los derechos reservados. Aviso legal",
    "fi": "Käytämme evästeitä sivuston toiminnan varmistamiseksi.|Unohditko salasanan? Kirjaudu sisään|Jaa Twitter Facebook|"
    "© 2021 Kustantaja. Kaikki oikeudet pidätetään.",
    "ga": "Úsáideann an suíomh seo fianáin chun d'eispéireas a fheabhsú.|Logáil isteach Cláraigh|Roinn Facebook Twitter|"
    "© 2021 Gach ceart ar cosaint.",
    "hi": "यह वेबसाइट आपके अनुभव को बेहतर बनाने के लिए कुकीज़ का उपयोग करती है।|पासवर्ड भूल गए? लॉग इन करें|शेयर करें फेसबुक ट्विटर|© 2021 सर्वाधिकार सुरक्षित।",
    "hu": "Ez a weboldal sütiket használ a jobb felhasználói élmény érdekében.|Elfelejtett jelszó? Bejelentkezés|"
    "Megosztás Facebook Twitter|© 2021 Minden jog fenntartva. Adatvédelmi tájékoztató",
    "lt": "Ši svetainė naudoja slapukus, kad pagerintų jūsų naršymo patirtį.|Pamiršote slaptažodį? Prisijungti|"
    "Dalintis Facebook Twitter|© 2021 Visos teisės saugomos.",
    "mt": "Din il-websajt tuża l-cookies biex ittejjeb l-esperjenza tiegħek.|Nsejt il-password? Idħol|Ixxerja Facebook Twitter|"
    "© 2021 Id-drittijiet kollha riżervati.",
    "pt": "Este site utiliza cookies para melhorar a sua experiência de navegação.|Esqueceu-se da palavra-passe? Iniciar sessão|"
    "Partilhar Facebook Twitter|© 2021 Todos os direitos reservados.",
    "sw": "Tovuti hii inatumia vidakuzi ili kuboresha huduma kwako.|Umesahau nenosiri? Ingia|Shiriki Facebook Twitter WhatsApp|"
    "© 2021 Haki zote zimehifadhiwa.",
    "th": "เว็บไซต์นี้ใช้คุกกี้เพื่อเพิ่มประสิทธิภาพและประสบการณ์ที่ดีในการใช้งาน|ลืมรหัสผ่าน? เข้าสู่ระบบ|แชร์ Facebook Twitter LINE|© 2021 สงวนลิขสิทธิ์",
    "tr": "Sitemizde size daha iyi hizmet sunabilmek için çerezler kullanılmaktadır.|Şifremi unuttum Üye ol|"
    "Paylaş Facebook Twitter WhatsApp|© 2021 Her hakkı saklıdır. Tüm hakları saklıdır.",
    "zh": "本网站使用Cookie以提升您的浏览体验。|忘记密码？登录 注册|分享到：微信 微博 QQ空间|版权所有 © 2021 隐私政策",
}


def boilerplate_only(text: str, lang: str, pages: Pages, rng: random.Random) -> str | None:
    """The page's heading between a menu out of its words and the notices of a site, without any of its text."""
    words = [
        word for word in _words("".join(c for c in text if c.isalpha() or unicodedata.category(c)[0] == "M" or c == " "), lang) if word
    ]
    menu = [rng.choice(words) for _ in range(rng.randint(6, 14))]
    heading = (" " if lang not in UNSPACED else "").join(words[:4])
    first, *others = _SITE_LINES[lang].split("|")
    rows = menu if rng.random() < 0.5 else [" | ".join(menu)]
    return "\n".join([first, *rows, heading, *others])


KINDS: dict[Dirt, frozenset[str]] = {
    utf8_misread: frozenset({"mojibake"}),
    code_page_misread: frozenset({"mojibake", "control_characters"}),  # cp1250's quotation marks are control characters in Latin-1
    bytes_lost: frozenset({"broken_encoding"}),
    # Lines are judged more strictly than the page, so another language may be found by them first.
    other_language: frozenset({"wrong_language", "mixed_language", "wrong_script"}),
    # What is left of a page may be taken for the other language as a whole, or be of its script.
    half_other_language: frozenset({"mixed_language", "wrong_language", "wrong_script"}),
    a_few_words: frozenset({"too_short"}),
    lines_repeated: frozenset({"repetition"}),
    words_repeated: frozenset({"repetition"}),
    symbols_strewn: frozenset({"symbols"}),
    nul_bytes: frozenset({"control_characters"}),
    without_end: frozenset({"too_long"}),
    wrong_letters: frozenset({"wrong_script"}),
    boilerplate_only: frozenset({"boilerplate"}),
}
"""Each kind of dirt with the reasons that are right for it."""
