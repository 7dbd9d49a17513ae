// What the languages look like, for highlight.js: a pattern with the groups com, str, num, kw, typ, att and name (a
// word that is then looked up), and the lists of words. A pattern that needs something after a name bounds the name and
// begins at its first letter only: else a long word is searched again from each of its letters.

const SLASH = String.raw`\/\/[^\n]*|\/\*[^]*?(?:\*\/|$)`;
const HASH = String.raw`#[^\n]*`;
const DOUBLE = String.raw`"(?:[^"\\\n]|\\[^])*(?:"|$)?`;
const SINGLE = String.raw`'(?:[^'\\\n]|\\[^])*(?:'|$)?`;
const BACKTICK = "`(?:[^`\\\\]|\\\\[^])*(?:`|$)";
const NUMBER = String.raw`\b(?:0[xXoObB][\da-fA-F_]+|\d[\d_]*(?:\.\d[\d_]*)?(?:[eE][+-]?\d+)?)\w*`;
const NAME = String.raw`[A-Za-z_$][\w$]*`;

function language({ com, str, num = NUMBER, name = NAME, before = "", keywords = "", types = "", anyCase = false }) {
  const groups = [before, com && `(?<com>${com})`, str && `(?<str>${str})`, `(?<num>${num})`, `(?<name>${name})`];
  const words = (list) => new Set(list.split(/\s+/).filter(Boolean));
  const pattern = new RegExp(groups.filter(Boolean).join("|"), "g");
  return { pattern, keywords: words(keywords), types: words(types), anyCase };
}

const C_WORDS = `auto break case const continue default do else enum extern for goto if inline register return sizeof
static struct switch typedef union volatile while #include #define #if #ifdef #ifndef #endif #else #pragma`;
const CPP_WORDS = `class namespace template typename public private protected virtual override final using new delete this
try catch throw operator friend constexpr nullptr true false noexcept co_await co_return concept requires __global__
__device__ __shared__`;

export const LANGUAGES = {
  rust: language({
    com: SLASH,
    str: String.raw`b?r##"[^]*?(?:"##|$)|b?r#"[^]*?(?:"#|$)|b?r"[^"]*(?:"|$)|b?${DOUBLE}|b?'(?:[^'\\\n]|\\[^'\n]*.)'`,
    before: String.raw`(?<att>#!?\[[^\]\n]{0,200}\]|'[a-z_]\w*\b(?!'))`,
    name: String.raw`[A-Za-z_]\w*!?`,
    keywords: `as async await break const continue crate dyn else enum extern false fn for if impl in let loop match mod
move mut pub ref return self Self static struct super trait true type unsafe use where while yield`,
    types: `bool char f32 f64 i8 i16 i32 i64 i128 isize str u8 u16 u32 u64 u128 usize String Vec Option Result Box Rc Arc
HashMap HashSet BTreeMap Some None Ok Err Iterator Default Clone Copy Debug`,
  }),
  python: language({
    com: HASH,
    str: String.raw`[rbfuRBFU]{0,2}(?:"""[^]*?(?:"""|$)|'''[^]*?(?:'''|$)|${DOUBLE}|${SINGLE})`,
    before: String.raw`(?<att>(?<![^\n])[ \t]*@[\w.]+)`,
    keywords: `and as assert async await break case class continue def del elif else except False finally for from global
if import in is lambda match None nonlocal not or pass raise return True try while with yield self`,
    types: `int float str bool list dict set tuple bytes object type Exception ValueError TypeError KeyError print len
range enumerate zip map filter sorted sum min max open isinstance super`,
  }),
  js: language({
    com: SLASH,
    str: `${DOUBLE}|${SINGLE}|${BACKTICK}`,
    before: String.raw`(?<att>@[A-Za-z_]\w*)`,
    keywords: `abstract as async await break case catch class const continue declare default delete do else enum export
extends false finally for from function get if implements import in instanceof interface keyof let namespace new null of
private protected public readonly return satisfies set static super switch this throw true try type typeof undefined var
void while yield`,
    types: `string number boolean any unknown never object bigint symbol Array Map Set Promise Object String Number
Boolean Error Date Math JSON RegExp console document window Record Partial`,
  }),
  json: language({
    com: SLASH,
    before: String.raw`(?<att>"(?:[^"\\\n]|\\[^\n])*"(?=\s{0,8}:))`,
    str: DOUBLE,
    keywords: "true false null",
  }),
  bash: language({
    com: String.raw`(?<![\w$\{])#[^\n]*`,
    str: String.raw`"(?:[^"\\]|\\[^])*(?:"|$)|'[^']*(?:'|$)`,
    before: String.raw`(?<att>\$\{[^}\n]{0,200}\}|\$[\w@#?*!]+|(?<=\s)--?[A-Za-z][\w-]*)`,
    num: String.raw`\b\d+\b`,
    name: String.raw`[A-Za-z_][\w-]*`,
    keywords: `if then else elif fi for in do done while until case esac function return exit export local readonly set
unset source alias eval exec trap shift break continue sudo`,
    types: `echo cd ls cat grep sed awk curl git docker cargo npm pip python python3 make mkdir rm cp mv find xargs tar ssh
apt apt-get brew systemctl chmod chown kill ps head tail sort uniq wc tee node`,
  }),
  c: language({
    com: SLASH,
    str: `${DOUBLE}|${SINGLE}|<[\\w./+-]+\\.h>`,
    name: String.raw`#?[A-Za-z_]\w*`,
    keywords: `${C_WORDS} ${CPP_WORDS}`,
    types: `bool char double float int long short signed unsigned void size_t ssize_t int8_t int16_t int32_t int64_t
uint8_t uint16_t uint32_t uint64_t std string vector map set unique_ptr shared_ptr optional FILE NULL`,
  }),
  go: language({
    com: SLASH,
    str: `${DOUBLE}|${SINGLE}|${BACKTICK}`,
    keywords: `break case chan const continue default defer else fallthrough for func go goto if import interface map
package range return select struct switch type var true false nil iota`,
    types: `bool byte complex64 complex128 error float32 float64 int int8 int16 int32 int64 rune string uint uint8 uint16
uint32 uint64 uintptr any append cap close copy delete len make new panic print println recover`,
  }),
  java: language({
    com: SLASH,
    str: `"""[^]*?(?:"""|$)|${DOUBLE}|${SINGLE}`,
    before: String.raw`(?<att>@[A-Za-z_]\w*)`,
    keywords: `abstract as assert async await base break case catch class companion const continue data default do else
enum extends false final finally for foreach fun func get if implements import in init instanceof interface internal is
lambda let namespace native new null object open out override package private protected public readonly record ref return
sealed set static struct super switch synchronized this throw throws true try typeof using val var virtual void volatile
when where while yield guard nil self extension protocol`,
    types: `boolean bool byte char decimal double float int long short string String Integer Long Double Object List Map
Set ArrayList HashMap Optional Stream Int Boolean Double Any Unit Task IEnumerable Exception System Console`,
  }),
  sql: language({
    com: String.raw`--[^\n]*|\/\*[^]*?(?:\*\/|$)`,
    str: String.raw`'(?:[^']|'')*(?:'|$)|"[^"\n]*"?`,
    anyCase: true,
    keywords: `add all alter and as asc between by case check column commit constraint create cross database default
delete desc distinct drop else end except exists explain foreign from full group having if in index inner insert intersect
into is join key left like limit not null offset on or order outer over partition primary references replace returning
right rollback select set table then transaction truncate union unique update using values view when where with`,
    types: `bigint blob boolean char date decimal double float int integer json jsonb numeric real serial smallint text
time timestamp uuid varchar avg coalesce count max min now row_number sum`,
  }),
  html: language({
    com: String.raw`<!--[^]*?(?:-->|$)`,
    str: String.raw`(?<==)\s{0,4}(?:"[^"]*"?|'[^']*'?)`,
    before: String.raw`(?<kw><\/?[A-Za-z][\w:-]*|\/?>|<!\w+)`,
    num: String.raw`&#?\w{1,32};`,
    name: String.raw`(?<![\w:.-])[A-Za-z_:@][\w:.-]{0,60}(?==)`,
  }),
  css: language({
    com: String.raw`\/\*[^]*?(?:\*\/|$)`,
    str: `${DOUBLE}|${SINGLE}`,
    before: String.raw`(?<kw>@[\w-]+|!important)|(?<typ>--[\w-]+|(?<![\w-])[\w-]{1,60}(?=\s{0,8}:[^:]))|(?<att>[.#](?![\da-fA-F]{3,8}\b)[A-Za-z_][\w-]*)`,
    num: String.raw`#[\da-fA-F]{3,8}\b|-?\b\d+(?:\.\d+)?(?:%|[a-z]+)?`,
    name: String.raw`[A-Za-z_][\w-]*`,
  }),
  yaml: language({
    com: String.raw`(?<!\S)#[^\n]*`,
    str: `${DOUBLE}|${SINGLE}`,
    before: String.raw`(?<att>(?<![\w./-])[\w./-]{1,80}(?=\s{0,8}:(?:\s|$)))|(?<kw>(?<![^\n])---|[&*][\w-]+)`,
    keywords: "true false null yes no on off",
  }),
  toml: language({
    com: String.raw`[#;][^\n]*`,
    str: String.raw`"""[^]*?(?:"""|$)|${DOUBLE}|${SINGLE}`,
    before: String.raw`(?<kw>\[\[?[^\]\n]{0,200}\]\]?)|(?<att>(?<![\w.-])[\w.-]{1,80}(?=\s{0,8}=))`,
    keywords: "true false",
  }),
  diff: {
    pattern: /(?<typ>^\+[^\n]*)|(?<num>^-[^\n]*)|(?<kw>^@@[^\n]*)|(?<com>^(?:diff|index)[^\n]*)/gm,
    keywords: new Set(),
    types: new Set(),
  },
};

/** What stands after a code fence: the language's entry above, and how it is called. */
export const NAMES = new Map(
  Object.entries({
    rust: ["rust", "Rust"], rs: ["rust", "Rust"], python: ["python", "Python"], py: ["python", "Python"],
    python3: ["python", "Python"], javascript: ["js", "JavaScript"], js: ["js", "JavaScript"], mjs: ["js", "JavaScript"],
    jsx: ["js", "JSX"], typescript: ["js", "TypeScript"], ts: ["js", "TypeScript"], tsx: ["js", "TSX"],
    json: ["json", "JSON"], jsonc: ["json", "JSON"], json5: ["json", "JSON"], bash: ["bash", "Bash"], sh: ["bash", "Shell"],
    shell: ["bash", "Shell"], zsh: ["bash", "Shell"], console: ["bash", "Console"], dockerfile: ["bash", "Dockerfile"],
    c: ["c", "C"], h: ["c", "C"], cpp: ["c", "C++"], "c++": ["c", "C++"], cc: ["c", "C++"], cuda: ["c", "CUDA"],
    cu: ["c", "CUDA"], go: ["go", "Go"], golang: ["go", "Go"], java: ["java", "Java"], kotlin: ["java", "Kotlin"],
    kt: ["java", "Kotlin"], csharp: ["java", "C#"], cs: ["java", "C#"], "c#": ["java", "C#"], swift: ["java", "Swift"],
    scala: ["java", "Scala"], sql: ["sql", "SQL"], sqlite: ["sql", "SQL"], postgresql: ["sql", "SQL"], html: ["html", "HTML"],
    xml: ["html", "XML"], svg: ["html", "SVG"], css: ["css", "CSS"], scss: ["css", "SCSS"], yaml: ["yaml", "YAML"],
    yml: ["yaml", "YAML"], toml: ["toml", "TOML"], ini: ["toml", "INI"], diff: ["diff", "Diff"], patch: ["diff", "Diff"],
    text: ["", "Text"], txt: ["", "Text"], plaintext: ["", "Text"], markdown: ["", "Markdown"], md: ["", "Markdown"],
  }),
);
