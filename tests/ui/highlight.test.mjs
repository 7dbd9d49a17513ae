// Colouring code: nothing is lost, the classes are right where it matters, and no language is slow on hostile text.

import assert from "node:assert/strict";
import { test } from "node:test";
import { highlight, languageName } from "../../crates/ossia-serve/src/ui/highlight.js";
import { NAMES } from "../../crates/ossia-serve/src/ui/languages.js";

const marked = (code, lang) => highlight(code, lang).filter(({ c }) => c).map(({ c, s }) => `${c}:${s.trim()}`).join(" ");

const cases = [
  ["rust", "let x: u32 = 0xff; // hi", "kw:let typ:u32 num:0xff com:// hi"],
  ["rust", "fn f<'a>(c: &'a str) { 'x' }", "kw:fn att:'a att:'a typ:str str:'x'"],
  ["rust", "r#\"a\"b\"# println!(\"{}\")", "str:r#\"a\"b\"# fn:println! str:\"{}\""],
  ["python", "@dec\ndef f():\n  '''a\nb'''  # c", "att:@dec kw:def fn:f str:'''a\nb''' com:# c"],
  ["js", "const a = `x ${1}`; /* open", "kw:const str:`x ${1}` com:/* open"],
  ["json", '{"a": [1, true, "b"]}', 'att:"a" num:1 kw:true str:"b"'],
  ["bash", "echo \"$HOME\" --flag # c", "typ:echo str:\"$HOME\" att:--flag com:# c"],
  ["cpp", "#include <stdio.h>\nint main()", "kw:#include str:<stdio.h> typ:int fn:main"],
  ["go", "func main() { return nil }", "kw:func fn:main kw:return kw:nil"],
  ["sql", "SELECT count(*) FROM t -- c", "kw:SELECT typ:count kw:FROM com:-- c"],
  ["html", '<a href="x">t</a><!-- c', 'kw:<a str:"x" kw:> kw:</a> com:<!-- c'],
  ["css", "a { color: #fff; } /* c */", "typ:color num:#fff com:/* c */"],
  ["yaml", "a: 1 # c\nb: true", "att:a num:1 com:# c att:b kw:true"],
  ["toml", "[a]\nb = \"c\" # d", "kw:[a] att:b str:\"c\" com:# d"],
  ["diff", "@@ -1 +1 @@\n-a\n+b\n c", "kw:@@ -1 +1 @@ num:-a typ:+b"],
];
for (const [lang, code, wanted] of cases) test(`${lang}: ${code}`, () => assert.equal(marked(code, lang), wanted));

test("unknown languages and plain text stay plain", () => {
  for (const lang of ["", "brainfuck", "constructor", "__proto__", "text"]) assert.deepEqual(highlight("let x", lang), [{ c: null, s: "let x" }]);
  assert.equal(languageName("rs"), "Rust");
});

test("at least twelve languages", () => assert.ok(new Set([...NAMES.values()].map(([id]) => id).filter(Boolean)).size >= 12));

const pieces = ['"', "'", "`", "/*", "//", "#", "\\", '"""', "<!--", "a ", "0x", "1e", "$", "${", "--", "@", "[", "r#", "=\"", "\n", " ", "'''", "_", ":", "- "];
const each = new Map([...NAMES].map(([name, [id]]) => [id, name])); // one name of each language
for (const lang of each.values()) {
  test(`hostile ${lang}`, { timeout: 20_000 }, () => {
    for (const piece of pieces) {
      const code = piece.repeat(20_000).slice(0, 60_000);
      assert.equal(highlight(code, lang).map(({ s }) => s).join(""), code);
    }
  });
}
