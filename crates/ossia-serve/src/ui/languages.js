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

const C_WORDS = `auto break case class const constexpr continue default delete do else enum explicit extern false final for
friend goto if inline namespace new noexcept nullptr operator override private protected public register return sizeof
static struct switch template this throw true try catch typedef typename union using virtual volatile while #include
#define #if #ifdef #ifndef #endif #else #pragma __global__ __device__ __shared__`;

export const LANGUAGES = {
  rust: language({
    com: SLASH,
    str: String.raw`b?r##"[^]*?(?:"##|$)|b?r#"[^]*?(?:"#|$)|b?r"[^"]*(?:"|$)|b?${DOUBLE}|b?'(?:[^'\\\n]|\\[^'\n]*.)'`,
    before: String.raw`(?<att>#!?\[[^\]\n]{0,200}\]|'[a-z_]\w*\b(?!'))`,
    name: String.raw`[A-Za-z_]\w*!?`,
    keywords: `as async await break const continue crate dyn else enum extern false fn for if impl in let loop match mod
move mut pub ref return self Self static struct super trait true type unsafe use where while`,
    types: `bool char f32 f64 i8 i16 i32 i64 i128 isize str u8 u16 u32 u64 u128 usize String Vec Option Result Box Rc Arc
Some None Ok Err`,
  }),
  python: language({
    com: HASH,
    str: String.raw`[rbfuRBFU]{0,2}(?:"""[^]*?(?:"""|$)|'''[^]*?(?:'''|$)|${DOUBLE}|${SINGLE})`,
    before: String.raw`(?<att>(?<![^\n])[ \t]*@[\w.]+)`,
    keywords: `and as assert async await break case class continue def del elif else except False finally for from global
if import in is lambda match None nonlocal not or pass raise return True try while with yield self`,
    types: "int float str bool list dict set tuple bytes object type Exception print len range open",
  }),
  js: language({
    com: SLASH,
    str: `${DOUBLE}|${SINGLE}|${BACKTICK}`,
    before: String.raw`(?<att>@[A-Za-z_]\w*)`,
    keywords: `abstract as async await break case catch class const continue declare default delete do else enum export
extends false finally for from function get if implements import in instanceof interface keyof let new null of private
protected public readonly return satisfies set static super switch this throw true try type typeof undefined var void
while yield`,
    types: `string number boolean any unknown never object bigint symbol Array Map Set Promise Object String Number
Boolean Error Date Math JSON console document window`,
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
    keywords: `if then else elif fi for in do done while until case esac function return exit export local set unset
source eval exec trap sudo`,
    types: "echo cd ls cat grep sed awk curl git docker cargo npm pip python python3 make mkdir rm cp mv find tar ssh tee",
  }),
  c: language({
    com: SLASH,
    str: `${DOUBLE}|${SINGLE}|<[\\w./+-]+\\.h>`,
    name: String.raw`#?[A-Za-z_]\w*`,
    keywords: C_WORDS,
    types: `bool char double float int long short signed unsigned void size_t int8_t int16_t int32_t int64_t uint8_t
uint16_t uint32_t uint64_t std string vector map NULL`,
  }),
  go: language({
    com: SLASH,
    str: `${DOUBLE}|${SINGLE}|${BACKTICK}`,
    keywords: `break case chan const continue default defer else fallthrough for func go goto if import interface map
package range return select struct switch type var true false nil iota`,
    types: `bool byte error float32 float64 int int8 int16 int32 int64 rune string uint uint8 uint16 uint32 uint64 any
append len make new panic`,
  }),
  java: language({
    com: SLASH,
    str: `"""[^]*?(?:"""|$)|${DOUBLE}|${SINGLE}`,
    before: String.raw`(?<att>@[A-Za-z_]\w*)`,
    keywords: `abstract as async await break case catch class companion const continue data default do else enum extends
false final finally for foreach fun func get guard if implements import in init instanceof interface internal is let
namespace new nil null object open override package private protected public readonly record return sealed self set
static struct super switch synchronized this throw throws true try using val var virtual void when where while`,
    types: `boolean bool byte char decimal double float int long short string String Integer Int Long Double Boolean
Object List Map Set Any`,
  }),
  sql: language({
    com: String.raw`--[^\n]*|\/\*[^]*?(?:\*\/|$)`,
    str: String.raw`'(?:[^']|'')*(?:'|$)|"[^"\n]*"?`,
    anyCase: true,
    keywords: `add all alter and as asc between by case column constraint create cross default delete desc distinct drop
else end except exists foreign from full group having if in index inner insert intersect into is join key left like
limit not null offset on or order outer over partition primary references returning right select set table then union
unique update using values view when where with`,
    types: `bigint blob boolean char date decimal double float int integer json jsonb numeric real text timestamp uuid
varchar avg coalesce count max min sum`,
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
export const NAMES = new Map();
for (const [id, names] of Object.entries({
  rust: "rust rs=Rust", python: "python py python3=Python", json: "json jsonc json5=JSON", go: "go golang=Go", sql: "sql sqlite postgresql=SQL",
  js: "javascript js mjs=JavaScript jsx=JSX typescript ts=TypeScript tsx=TSX", bash: "bash=Bash sh shell zsh=Shell console=Console dockerfile=Dockerfile",
  c: "c h=C cpp c++ cc hpp=C++ cuda cu=CUDA", java: "java=Java kotlin kt=Kotlin csharp cs c#=C# swift=Swift scala=Scala",
  html: "html=HTML xml=XML svg=SVG", css: "css=CSS scss=SCSS", yaml: "yaml yml=YAML", toml: "toml=TOML ini=INI", diff: "diff patch=Diff",
  "": "text txt plaintext=Text markdown md=Markdown",
})) {
  for (const [, list, shown] of names.matchAll(/([^=]+)=(\S+)\s*/g)) for (const name of list.split(" ")) NAMES.set(name, [id, shown]);
}
