"""Lines that belong to a web site and not to its page: menus, cookie notices, share and login lines, copyright."""

import functools
import re
import unicodedata

from xl.pages.language import UNSPACED
from xl.pages.scripts import count_characters, density

# Phrases by language; a line of moderate length that holds one is a notice of the site. English ones count in every language.
_NOTICES = {
    "en": "use cookies|uses cookies|using cookies|accept cookies|accept all cookies|cookie policy|cookie settings|"
    "all rights reserved|privacy policy|terms of service|terms of use|terms and conditions|sign up for our newsletter|"
    "subscribe to our newsletter|forgot your password|forgot password|enable javascript|powered by wordpress|"
    "you must be logged in|your email address will not be published|click to share|share this article|share this post|"
    "follow us on|skip to content|skip to main content|leave a reply|leave a comment|your browser does not support|copyright ©|"
    "(opens in new window)|designed by",
    "ar": "ملفات تعريف الارتباط|ملفات الارتباط|سياسة الخصوصية|جميع الحقوق محفوظة|كافة الحقوق محفوظة|شروط الاستخدام|نسيت كلمة المرور|"
    "اشترك في النشرة|تابعنا على|شارك المقال|شارك هذا|لن يتم نشر عنوان بريدك|يجب تسجيل الدخول|اترك تعليق|حقوق النشر",
    "de": "verwendet cookies|verwenden cookies|nutzt cookies|nutzen cookies|setzt cookies|cookies akzeptieren|cookies zulassen|"
    "cookie-richtlinie|cookie-einstellungen|alle rechte vorbehalten|datenschutzerklärung|nutzungsbedingungen|"
    "newsletter anmelden|newsletter abonnieren|passwort vergessen|noch kein konto|aktivieren sie javascript|"
    "auf facebook teilen|artikel teilen|beitrag teilen|folgen sie uns|e-mail-adresse wird nicht veröffentlicht|"
    "kommentar hinterlassen|bitte melden sie sich an|zum inhalt springen|zum warenkorb",
    "es": "utiliza cookies|utilizamos cookies|usa cookies|usamos cookies|aceptar cookies|aceptar todas las cookies|"
    "política de cookies|todos los derechos reservados|política de privacidad|aviso legal|términos y condiciones|"
    "condiciones de uso|suscríbete a nuestr|olvidaste tu contraseña|olvidó su contraseña|síguenos en|compartir en facebook|"
    "comparte este artículo|deja un comentario|dirección de correo electrónico no será publicada|debes iniciar sesión|"
    "saltar al contenido|ir al contenido",
    "fi": "käyttää evästeitä|käytämme evästeitä|hyväksy evästeet|evästeasetukset|kaikki oikeudet pidätetään|tietosuojaseloste|"
    "käyttöehdot|tilaa uutiskirje|unohditko salasan|seuraa meitä|jaa artikkeli|jaa facebookissa|"
    "sähköpostiosoitettasi ei julkaista|siirry sisältöön",
    "fr": "utilise des cookies|utilisons des cookies|accepter les cookies|tous droits réservés|politique de confidentialité|"
    "mentions légales|conditions d'utilisation|mot de passe oublié|abonnez-vous à notre|inscrivez-vous à notre|suivez-nous sur|"
    "partager sur facebook|partager cet article|laisser un commentaire|aller au contenu",
    "ga": "úsáideann an suíomh seo fianáin|úsáidimid fianáin|glac le fianáin|beartas fianán|polasaí fianán|gach ceart ar cosaint|"
    "polasaí príobháideach|beartas príobháideach|ráiteas príobháideach|téarmaí agus coinníollacha|téarmaí úsáide|lean muid ar|"
    "lean sinn ar|roinn an t-alt|roinn ar facebook|ndearna tú dearmad ar do phasfhocal|liostáil lenár nuachtlitir|fág trácht|"
    "téigh chuig an bpríomhábhar",
    "hi": "कुकीज़ का उपयोग|कुकी का उपयोग|कुकीज़ स्वीकार|सर्वाधिकार सुरक्षित|गोपनीयता नीति|नियम और शर्तें|पासवर्ड भूल|"
    "न्यूज़लेटर के लिए|हमें फ़ॉलो करें|हमें फॉलो करें|यह भी पढ़ें|फेसबुक पर शेयर|टिप्पणी करें|लॉग इन करें",
    "hu": "sütiket használ|cookie-kat használ|sütik elfogadása|minden jog fenntartva|adatvédelmi tájékoztató|"
    "adatkezelési tájékoztató|felhasználási feltételek|elfelejtette jelszavát|elfelejtett jelszó|iratkozzon fel hírlevel|"
    "kövessen minket|megosztás facebookon|cikk megosztása|ugrás a tartalomra|szóljon hozzá",
    "id": "menggunakan cookie|menggunakan kuki|hak cipta dilindungi|kebijakan privasi|syarat dan ketentuan|lupa kata sandi|"
    "ikuti kami di|bagikan artikel|baca juga|berlangganan newsletter|tinggalkan komentar",
    "it": "utilizza cookie|utilizza i cookie|utilizziamo i cookie|accetta i cookie|tutti i diritti riservati|"
    "informativa sulla privacy|termini e condizioni|password dimenticata|iscriviti alla newsletter|seguici su|"
    "condividi su facebook|lascia un commento",
    "ja": "クッキーを使用|cookieを使用|cookie（クッキー）|無断転載を禁じ|プライバシーポリシー|利用規約|パスワードを忘れ|"
    "メールマガジン登録|シェアする|コメントを残す",
    "ko": "쿠키를 사용|모든 권리 보유|무단 전재|무단전재|개인정보처리방침|개인정보 처리방침|이용약관|비밀번호 찾기|뉴스레터 구독|"
    "댓글을 남기",
    "lt": "naudoja slapukus|naudojame slapukus|naudojami slapukai|visos teisės saugomos|visos teisės ginamos|privatumo politika|"
    "slapukų politika|naudojimosi taisyklės|pamiršote slaptažodį|prenumeruokite naujienlaišk|sekite mus|dalintis facebook|"
    "dalinkitės straipsniu",
    "mt": "juża l-cookies|jużaw il-cookies|nużaw il-cookies|aċċetta l-cookies|politika tal-cookies|drittijiet kollha riżervati|"
    "politika tal-privatezza|termini u kundizzjonijiet|nsejt il-password|segwina fuq|ixxerja dan|aqsam dan l-artiklu|"
    "abbona għan-newsletter|ħalli kumment",
    "nl": "gebruikt cookies|gebruiken cookies|cookies accepteren|alle rechten voorbehouden|privacybeleid|privacyverklaring|"
    "algemene voorwaarden|wachtwoord vergeten|schrijf je in voor|volg ons op|deel dit artikel|laat een reactie achter",
    "pl": "używa plików cookie|używamy plików cookie|korzysta z plików cookie|wszelkie prawa zastrzeżone|polityka prywatności|"
    "regulamin serwisu|zapomniałeś hasła|nie pamiętasz hasła|zapisz się do newslettera|śledź nas|udostępnij na|dodaj komentarz",
    "pt": "utiliza cookies|utilizamos cookies|usa cookies|usamos cookies|aceitar cookies|aceitar todos os cookies|"
    "política de cookies|todos os direitos reservados|política de privacidade|termos e condições|termos de uso|esqueceu-se da|"
    "esqueceu a senha|subscreva a nossa newsletter|assine nossa newsletter|siga-nos|partilhar no facebook|"
    "compartilhar no facebook|partilhe este artigo|deixe um comentário|deixe o seu comentário",
    "ru": "использует файлы cookie|используем файлы cookie|использует куки|все права защищены|политика конфиденциальности|"
    "пользовательское соглашение|забыли пароль|подпишитесь на|подписаться на рассылку|поделиться в|оставить комментарий|"
    "читайте также",
    "sw": "hutumia vidakuzi|inatumia vidakuzi|tunatumia vidakuzi|kubali vidakuzi|hutumia cookies|inatumia cookies|tunatumia cookies|"
    "sera ya vidakuzi|haki zote zimehifadhiwa|sera ya faragha|vigezo na masharti|masharti ya matumizi|umesahau nenosiri|"
    "umesahau nywila|tufuate kwenye|tufuatilie kwenye|shiriki makala|jiandikishe kupata|acha maoni",
    "th": "ใช้คุกกี้|ยอมรับคุกกี้|นโยบายคุกกี้|สงวนลิขสิทธิ์|นโยบายความเป็นส่วนตัว|เงื่อนไขการใช้งาน|ข้อกำหนดและเงื่อนไข|ลืมรหัสผ่าน|"
    "ติดตามเราได้ที่|แชร์บทความ|แชร์ไปยัง|สมัครรับข่าวสาร|แสดงความคิดเห็น|กรุณาเข้าสู่ระบบ",
    "tr": "çerez kullan|çerezler kullan|çerezleri kabul|çerez politikası|tüm hakları saklıdır|gizlilik politikası|"
    "gizlilik sözleşmesi|kullanım koşulları|kullanım şartları|şifremi unuttum|şifrenizi mi unuttunuz|bültenimize abone|"
    "e-bülten|bizi takip edin|facebook'ta paylaş|yorum yapabilmek için|yorum yapmak için giriş|"
    "e-posta hesabınız yayımlanmayacak|içeriğe geç|kişisel verilerin korunması kanunu",
    "vi": "sử dụng cookie|chấp nhận cookie|chính sách cookie|bản quyền thuộc về|giữ bản quyền|bảo lưu mọi quyền|chính sách bảo mật|"
    "chính sách quyền riêng tư|điều khoản sử dụng|điều khoản dịch vụ|quên mật khẩu|đăng ký nhận tin|đăng ký nhận bản tin|"
    "theo dõi chúng tôi|chia sẻ bài viết|chia sẻ lên facebook|để lại bình luận|ghi rõ nguồn khi phát hành lại|"
    "vui lòng đăng nhập",
    "zh": "使用cookie|使用 cookie|版权所有|保留所有权利|隐私政策|隐私权政策|服务条款|使用条款|忘记密码|订阅我们的|关注我们|"
    "转载请注明|分享到|版權所有|隱私政策|粤icp备|京icp备|沪icp备",
}

# Words of buttons and menus. A line that is one of them, or mostly made of them, is not the page's.
_LABELS = {
    "en": "home|contact|contact us|about|about us|login|log in|sign in|sign up|register|logout|share|tweet|print|email|comments|"
    "search|menu|next|previous|read more|subscribe|newsletter|privacy|terms|cart|add to cart|checkout|my account|wishlist|faq|"
    "help|sitemap|news|blog|shop|facebook|twitter|instagram|youtube|whatsapp|pinterest|telegram|linkedin|tiktok|rss|x|reply|"
    "like|quote|accept|decline|ok|close|back to top|advertisement",
    "ar": "الرئيسية|اتصل بنا|من نحن|تسجيل الدخول|دخول|تسجيل|إنشاء حساب|شارك|مشاركة|بحث|القائمة|التالي|السابق|اقرأ المزيد|المزيد|"
    "اشترك|أخبار|الأخبار|رياضة|اقتصاد|سياسة|ثقافة|فيديو|فيسبوك|تويتر|واتساب|تعليقات|قبول|رفض|موافق|طباعة|إغلاق|أضف إلى السلة|"
    "سلة التسوق",
    "de": "startseite|kontakt|über uns|anmelden|einloggen|abmelden|registrieren|teilen|drucken|suche|suchen|menü|weiter|zurück|"
    "weiterlesen|mehr|mehr erfahren|impressum|datenschutz|agb|warenkorb|in den warenkorb|zur kasse|mein konto|merkzettel|hilfe|"
    "nachrichten|aktuelles|leistungen|referenzen|karriere|presse|akzeptieren|ablehnen|einstellungen|alle akzeptieren|"
    "kommentare|antworten|zitieren|nach oben|anzeige|versand|widerruf",
    "es": "inicio|contacto|contáctenos|quiénes somos|sobre nosotros|iniciar sesión|acceder|entrar|registrarse|regístrate|compartir|"
    "imprimir|buscar|menú|siguiente|anterior|leer más|ver más|más información|suscríbete|noticias|tienda|carrito|"
    "añadir al carrito|mi cuenta|ayuda|servicios|galería|aceptar|rechazar|configurar|comentarios|responder|volver arriba|"
    "publicidad|deportes|economía|política|cultura|sociedad|opinión",
    "fi": "etusivu|yhteystiedot|ota yhteyttä|meistä|kirjaudu|kirjaudu sisään|rekisteröidy|jaa|tulosta|haku|hae|valikko|seuraava|"
    "edellinen|lue lisää|uutiset|urheilu|talous|kulttuuri|verkkokauppa|ostoskori|lisää ostoskoriin|oma tili|ohje|hyväksy|"
    "hylkää|asetukset|kommentit|vastaa|mainos|palvelut",
    "fr": "accueil|contact|à propos|connexion|se connecter|s'inscrire|partager|imprimer|rechercher|recherche|suivant|précédent|"
    "lire la suite|en savoir plus|actualités|boutique|panier|ajouter au panier|mon compte|aide|accepter|refuser|commentaires|"
    "répondre|haut de page|publicité",
    "ga": "baile|leathanach baile|teagmháil|déan teagmháil linn|fúinn|maidir linn|eolas fúinn|logáil isteach|sínigh isteach|cláraigh|"
    "roinn|priontáil|cuardaigh|cuardach|roghchlár|ar aghaidh|ar ais|tuilleadh|léigh tuilleadh|nuacht|spórt|gnó|siopa|ciseán|"
    "cuir sa chiseán|cabhair|glac leis|diúltaigh|socruithe|tráchtanna|freagair|ar ais go barr|príobháideachas|imeachtaí|cultúr|"
    "polaitíocht|físeáin|seirbhísí",
    "hi": "होम|मुख्य पृष्ठ|संपर्क|संपर्क करें|हमारे बारे में|लॉगिन|लॉग इन|रजिस्टर|शेयर|शेयर करें|प्रिंट|खोजें|मेनू|अगला|पिछला|"
    "और पढ़ें|समाचार|खेल|मनोरंजन|राजनीति|वीडियो|फेसबुक|ट्विटर|व्हाट्सएप|टिप्पणी|टिप्पणियाँ|स्वीकार करें|सहायता|विज्ञापन|"
    "सदस्यता लें|देश|दुनिया|व्यापार",
    "hu": "főoldal|kezdőlap|kapcsolat|rólunk|bejelentkezés|belépés|regisztráció|megosztás|nyomtatás|keresés|menü|következő|előző|"
    "tovább|részletek|hírek|sport|gazdaság|kultúra|webáruház|kosár|kosárba|fiókom|segítség|elfogadom|elutasítom|beállítások|"
    "hozzászólások|válasz|hirdetés|impresszum|szolgáltatások",
    "id": "beranda|kontak|hubungi kami|tentang kami|masuk|daftar|bagikan|cetak|cari|berikutnya|sebelumnya|selengkapnya|"
    "baca selengkapnya|berita|olahraga|toko|keranjang|tambah ke keranjang|akun saya|bantuan|terima|tolak|komentar|balas|iklan",
    "it": "contatti|chi siamo|accedi|registrati|condividi|stampa|cerca|avanti|indietro|leggi tutto|scopri di più|notizie|negozio|"
    "carrello|aggiungi al carrello|il mio account|aiuto|accetta|rifiuta|commenti|rispondi|pubblicità",
    "ja": "ホーム|トップページ|お問い合わせ|会社概要|ログイン|新規登録|会員登録|検索|メニュー|次へ|前へ|続きを読む|もっと見る|"
    "ニュース|カートに入れる|同意する|閉じる|コメント|ツイート|サイトマップ",
    "ko": "홈|문의하기|회사소개|로그인|회원가입|공유하기|공유|인쇄|검색|메뉴|다음|이전|더보기|뉴스|장바구니|고객센터|동의|닫기|댓글|"
    "목록|사이트맵",
    "lt": "pradžia|pagrindinis|kontaktai|susisiekite|apie mus|prisijungti|registruotis|registracija|dalintis|spausdinti|paieška|"
    "ieškoti|meniu|kitas|ankstesnis|skaityti daugiau|plačiau|naujienos|sportas|verslas|kultūra|parduotuvė|krepšelis|į krepšelį|"
    "mano paskyra|pagalba|sutinku|nesutinku|nustatymai|komentarai|atsakyti|reklama|paslaugos",
    "mt": "paġna ewlenija|kuntatt|ikkuntattjana|dwarna|idħol|illoggja|irreġistra|ixxerja|aqsam|stampa|fittex|tiftix|li jmiss|"
    "preċedenti|aqra aktar|aktar|aħbarijiet|sport|kultura|politika|negozju|ħanut|basket|għajnuna|aċċetta|irrifjuta|kummenti|"
    "wieġeb|riklam|servizzi|avvenimenti|vidjows",
    "nl": "over ons|inloggen|aanmelden|registreren|delen|afdrukken|zoeken|volgende|vorige|lees meer|meer informatie|nieuws|winkel|"
    "winkelwagen|in winkelwagen|mijn account|accepteren|weigeren|reacties|reageren|advertentie",
    "pl": "strona główna|kontakt|o nas|zaloguj|zaloguj się|zarejestruj się|udostępnij|drukuj|szukaj|następna|poprzednia|"
    "czytaj więcej|więcej|aktualności|sklep|koszyk|dodaj do koszyka|moje konto|pomoc|akceptuję|odrzuć|komentarze|odpowiedz|"
    "reklama",
    "pt": "início|página inicial|contacto|contactos|contato|sobre nós|quem somos|entrar|iniciar sessão|registar|cadastre-se|"
    "partilhar|compartilhar|imprimir|pesquisar|buscar|seguinte|próximo|anterior|leia mais|ler mais|saiba mais|notícias|loja|"
    "carrinho|adicionar ao carrinho|minha conta|ajuda|serviços|aceitar|rejeitar|recusar|definições|comentários|responder|"
    "publicidade|desporto|economia|política|cultura",
    "ru": "главная|контакты|о нас|войти|вход|регистрация|поделиться|печать|поиск|меню|далее|назад|читать далее|подробнее|новости|"
    "магазин|корзина|в корзину|личный кабинет|помощь|принять|отклонить|комментарии|ответить|реклама|наверх",
    "sw": "mwanzo|nyumbani|wasiliana nasi|mawasiliano|kuhusu sisi|ingia|jisajili|jiandikishe|shiriki|sambaza|chapisha|tafuta|menyu|"
    "ifuatayo|iliyotangulia|soma zaidi|zaidi|habari|michezo|burudani|siasa|biashara|afya|duka|kikapu|weka kwenye kikapu|"
    "akaunti yangu|msaada|kubali|kataa|mipangilio|maoni|jibu|tangazo|huduma|makala|kitaifa|kimataifa|rudi juu",
    "th": "หน้าแรก|หน้าหลัก|ติดต่อเรา|เกี่ยวกับเรา|เข้าสู่ระบบ|สมัครสมาชิก|ลงทะเบียน|แชร์|พิมพ์|ค้นหา|เมนู|ถัดไป|ก่อนหน้า|อ่านต่อ|"
    "อ่านเพิ่มเติม|ดูเพิ่มเติม|ข่าว|กีฬา|บันเทิง|การเมือง|เศรษฐกิจ|ร้านค้า|ตะกร้าสินค้า|หยิบใส่ตะกร้า|บัญชีของฉัน|ช่วยเหลือ|"
    "ยอมรับ|ปฏิเสธ|ความคิดเห็น|ตอบกลับ|โฆษณา|สินค้า|บริการ|โปรโมชั่น|เว็บบอร์ด",
    "tr": "anasayfa|ana sayfa|iletişim|bize ulaşın|hakkımızda|giriş|giriş yap|üye ol|kayıt ol|paylaş|yazdır|ara|menü|sonraki|önceki|"
    "devamını oku|devamı|daha fazla|haberler|gündem|spor|ekonomi|magazin|siyaset|mağaza|sepetim|sepete ekle|hesabım|yardım|"
    "kabul et|reddet|ayarlar|yorumlar|cevapla|alıntı|reklam|künye|kurumsal|hizmetlerimiz|galeri|yukarı çık",
    "vi": "trang chủ|liên hệ|giới thiệu|về chúng tôi|đăng nhập|đăng ký|đăng xuất|chia sẻ|in bài viết|tìm kiếm|danh mục|tiếp theo|"
    "trước|xem thêm|đọc tiếp|đọc thêm|tin tức|thể thao|giải trí|kinh tế|pháp luật|giáo dục|sức khỏe|cửa hàng|giỏ hàng|"
    "thêm vào giỏ hàng|thêm vào giỏ|tài khoản|trợ giúp|chấp nhận|từ chối|bình luận|trả lời|quảng cáo|thời sự|video|dịch vụ|"
    "sản phẩm|khuyến mãi",
    "zh": "首页|联系我们|关于我们|登录|注册|分享|打印|搜索|菜单|下一页|上一页|上一篇|下一篇|阅读更多|更多|新闻|体育|财经|娱乐|科技|"
    "商城|购物车|加入购物车|我的账户|帮助|接受|拒绝|评论|回复|广告|返回顶部|网站地图|友情链接",
}

_COPYRIGHT = re.compile(r"^\s*(©|\(c\)\s|copyright\b)|^.{0,60}©\s*\d{4}", re.IGNORECASE)
_SEPARATOR = re.compile(r"[|•»›▸►│]|\s[·>/–—-]\s")
_SENTENCE_ENDS = tuple(".!?…,;:。！？，；：、।؟،؛‼»”\"')]")

_MAX_NOTICE_CHARS = 300
_MAX_LABEL_CHARS = 30
_MAX_LABEL_WORDS = 4
_MIN_MENU_LINES = 4  # so many short lines in a row, at the head or tail of a page, are its site's menu
_MIN_MENU_PARTS = 4
_MAX_MENU_SYMBOL_RATIO = 0.3
_MIN_LABELS_IN_ROW = 3  # fewer must fill the whole line
_MIN_LABEL_RATIO = 0.5
_MIN_SUBSTANTIAL_CHARS = 60


def _fold(text: str) -> str:
    """Case-folded, with Turkish İ as a plain i."""
    return unicodedata.normalize("NFC", text.casefold().replace("i\u0307", "i"))


@functools.cache
def _patterns(lang: str) -> tuple[re.Pattern[str], re.Pattern[str]]:
    def any_of(table: dict[str, str]) -> str:
        phrases = {_fold(phrase) for code in ("en", lang) for phrase in table.get(code, "").split("|") if phrase}
        return "|".join(re.escape(phrase) for phrase in sorted(phrases, key=len, reverse=True))

    labels = any_of(_LABELS)
    return re.compile(any_of(_NOTICES)), re.compile(labels if lang in UNSPACED else rf"(?<!\w)(?:{labels})(?!\w)")


def _is_menu_row(line: str, width: float) -> bool:
    """Whether a line is short words between bars, arrows or bullets: "Home | News | Sport | Contact"."""
    parts = [part for part in _SEPARATOR.split(line) if part.strip()]
    if len(parts) < _MIN_MENU_PARTS or width / len(parts) > _MAX_LABEL_CHARS or line.rstrip().endswith(_SENTENCE_ENDS):
        return False
    return count_characters(line).symbol_ratio(1.0) <= _MAX_MENU_SYMBOL_RATIO


def _is_site_line(line: str, lang: str, width: float) -> bool:
    """Whether a line is a notice, a row of buttons or a menu by itself. `width` is its length in English characters."""
    if _is_menu_row(line, width):
        return True
    if width > _MAX_NOTICE_CHARS:
        return False
    folded = _fold(line)
    notices, labels = _patterns(lang)
    if notices.search(folded) or _COPYRIGHT.search(line):
        return True
    found = labels.findall(folded)
    num_visible = sum(map(str.isalpha, folded))
    num_in_labels = sum(sum(map(str.isalpha, label)) for label in found)
    return bool(found) and num_in_labels >= num_visible * (_MIN_LABEL_RATIO if len(found) >= _MIN_LABELS_IN_ROW else 1.0)


def _is_label(line: str, lang: str, width: float) -> bool:
    """Whether a line is short as a menu's entries are: few words, no sentence. Lines with digits may belong to a recipe or a table."""
    few_words = lang in UNSPACED or len(line.split()) <= _MAX_LABEL_WORDS
    return few_words and width <= _MAX_LABEL_CHARS and not line.rstrip().endswith(_SENTENCE_ENDS) and not any(map(str.isdigit, line))


def _menu_length(kinds: list[str]) -> int:
    """Number of lines at the head that are a menu: at least four labels and site lines before the first line of text."""
    length = num_lines = num_labels = 0
    for i, kind in enumerate(kinds):
        if kind == "text":
            break
        length = i + 1
        num_lines += kind != "blank"
        num_labels += kind == "label"
    return length if num_labels and num_lines >= _MIN_MENU_LINES else 0


def trim_boilerplate(text: str, lang: str) -> tuple[str, int]:
    """A page's text without its site's lines, and how many lines that were.

    Notices, buttons and menu rows go wherever they stand; a run of short lines goes at the head and at the tail only,
    and at the head its last line stays, which may be the page's title.
    """
    lines = text.split("\n")
    kinds = []
    for line in lines:
        width = len(line) * density(lang)
        if not line.strip():
            kinds.append("blank")
        elif _is_site_line(line, lang, width):
            kinds.append("site")
        else:
            kinds.append("label" if _is_label(line, lang, width) else "text")
    num_head, num_tail = _menu_length(kinds), _menu_length(kinds[::-1])
    if 0 < num_head < len(kinds) and kinds[num_head - 1] == "label":
        num_head -= 1
    last = len(lines) - num_tail
    kept = [line for i, (line, kind) in enumerate(zip(lines, kinds, strict=True)) if kind != "site" and num_head <= i < last]
    num_kept = sum(1 for line in kept if line.strip())
    return "\n".join(kept).strip(), len(kinds) - kinds.count("blank") - num_kept


def num_substantial_chars(text: str, lang: str) -> int:
    """Characters in lines that say something: sentences, and lines longer than a heading."""
    total = 0
    for line in text.split("\n"):
        width = len(line) * density(lang)
        if width >= _MIN_SUBSTANTIAL_CHARS or (width > _MAX_LABEL_CHARS and line.rstrip().endswith(_SENTENCE_ENDS)):
            total += len(line)
    return total
