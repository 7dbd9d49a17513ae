//! Each rule on small trees written as strings: it finds what it should, and leaves alone what it should.

use super::source::{File, mask};
use super::*;

fn tree(files: &[(&str, &str)]) -> Tree {
    let paths = files.iter().map(|(path, _)| (*path).to_owned()).collect();
    Tree::new(files.iter().map(|(path, text)| File::new(path, text)).collect(), paths)
}

/// The findings of one rule as `path:line`.
fn places(rule: Rule, files: &[(&str, &str)]) -> Vec<String> {
    rule(&tree(files)).iter().map(|f| format!("{}:{}", f.path, f.line)).collect()
}

const NOTHING: [String; 0] = [];

#[test]
fn masking_blanks_comments_and_literals_only() {
    let cases = [
        ("a // b { \nc", "a c"),
        ("x /* { /* } */ */ y", "x y"),
        (r#"f("}\"{", '}')"#, "f( , )"),
        ("r#\"a\"}\"# z", "z"),
        ("[br\"}\", b'{', c\"{\"]", "[ , b , ]"),
        ("fn f<'a>(x: &'a str) {}", "fn f<'a>(x: &'a str) {}"),
        (r"['\'', '\u{7d}', 'é']", "[ , , ]"),
    ];
    for (text, want) in cases {
        let masked = mask(text);
        assert_eq!(masked.split_whitespace().collect::<Vec<_>>().join(" "), want, "{text}");
        assert_eq!((masked.len(), masked.lines().count()), (text.len(), text.lines().count()), "{text}");
    }
}

#[test]
fn long_files_are_found() {
    let (fits, long) = ("\n".repeat(500), "\n".repeat(501));
    assert_eq!(places(length::files, &[("a/src/x.rs", &fits)]), NOTHING);
    assert_eq!(places(length::files, &[("docs/x.md", &long)]), ["docs/x.md:501"]);
}

#[test]
fn long_functions_are_found_by_their_braces() {
    let body = |lines: usize| {
        format!("//! x\nfn f(x: [u8; 2]) -> u8 {{\n{}}}\nfn g();\n", "    \"}\"; // }\n".repeat(lines - 2))
    };
    assert_eq!(places(length::functions, &[("a/src/x.rs", &body(70))]), NOTHING);
    assert_eq!(places(length::functions, &[("a/src/x.rs", &body(71))]), ["a/src/x.rs:2"]);
}

#[test]
fn files_without_an_opening_are_found() {
    assert_eq!(places(length::openings, &[("a/src/x.rs", "//! Contract.\n"), ("a/tests/y.rs", "use z;\n")]), NOTHING);
    assert_eq!(places(length::openings, &[("a/src/x.rs", "// Contract.\n")]), ["a/src/x.rs:1"]);
}

#[test]
fn unsafe_is_found_outside_its_places() {
    let code = "//! unsafe\n#![forbid(unsafe_code)]\nfn f() { unsafe { g() } }\n";
    assert_eq!(places(words::unsafe_places, &[("crates/ossia-kernels/src/a.rs", code)]), NOTHING);
    assert_eq!(places(words::unsafe_places, &[("crates/ossia-model/src/checkpoint/map.rs", code)]), NOTHING);
    assert_eq!(
        places(words::unsafe_places, &[("crates/ossia-model/src/lib.rs", code)]),
        ["crates/ossia-model/src/lib.rs:3"]
    );
    assert_eq!(
        places(words::unsafe_places, &[("crates/ossia-text/tests/t.rs", code)]),
        ["crates/ossia-text/tests/t.rs:3"]
    );
}

#[test]
fn unfinished_places_are_found() {
    let code =
        "fn a() { todo!() }\nfn b() { unimplemented!() }\nfn c() { dbg!(1); }\n// FIXME: x\n// XXX\nfn todo() {}\n";
    let want = [1, 2, 3, 4, 5].map(|line| format!("a/src/x.rs:{line}"));
    assert_eq!(places(words::banned, &[("a/src/x.rs", code)]), want);
    assert_eq!(places(words::banned, &[("a/src/x.rs", "const S: &str = \"todo!()\"; // XXXL\n")]), NOTHING);
}

#[test]
fn unwraps_are_found_outside_tests() {
    let code = "fn a() { x.unwrap() }\nfn b() { x.unwrap_or(1) } // .unwrap()\n#[cfg(test)]\nmod tests {\n    fn c() { x.unwrap() }\n}\nfn d() { x.unwrap() }\n";
    assert_eq!(places(words::banned, &[("a/src/x.rs", code)]), ["a/src/x.rs:1", "a/src/x.rs:7"]);
    assert_eq!(places(words::banned, &[("a/tests/x.rs", code), ("a/src/y/tests.rs", code)]), NOTHING);
}

#[test]
fn files_that_only_tests_reach_may_unwrap() {
    let files = [
        ("a/Cargo.toml", "[package]\n"),
        ("a/src/lib.rs", "mod real;\n#[cfg(test)]\n#[rustfmt::skip]\npub(crate) mod testing;\nmod other;\n"),
        ("a/src/real.rs", "x.unwrap()"),
        ("a/src/testing.rs", "mod deeper;\nx.unwrap()"),
        ("a/src/testing/deeper.rs", "x.unwrap()"),
        ("a/src/other.rs", "x.unwrap()"),
    ];
    assert_eq!(places(words::banned, &files), ["a/src/real.rs:1", "a/src/other.rs:1"]);
}

#[test]
fn machine_paths_are_found() {
    for line in ["\"/work/x\"", "// see /root", "(/home/me)", "\"/tmp\""] {
        assert_eq!(places(words::paths, &[("a/src/x.rs", line)]), ["a/src/x.rs:1"], "{line}");
    }
    for line in ["a/work/b", "\"{}/tmp\"", "/workshop", "/rooted", "docs/root", "/tmp.rs", "~/home/x", "$X/work"] {
        assert_eq!(places(words::paths, &[("a/src/x.rs", line)]), NOTHING, "{line}");
    }
    assert_eq!(places(words::paths, &[("a/tests/x.rs", "\"/tmp/x\""), ("README.md", "--out /tmp/x")]), NOTHING);
    assert_eq!(
        places(words::paths, &[("README.md", "\n/work/x"), ("a/tests/x.rs", "../shared/x")]),
        ["README.md:2", "a/tests/x.rs:1"]
    );
}

#[test]
fn crate_roots_forbid_unsafe() {
    let manifest = "[package]\n";
    let root = |path: &'static str, name: &'static str, text: &'static str| {
        places(house::crate_roots, &[(path, manifest), (name, text)])
    };
    let (text, lib) = ("crates/ossia-text/Cargo.toml", "crates/ossia-text/src/lib.rs");
    assert_eq!(root(text, lib, "#![forbid(unsafe_code)]"), NOTHING);
    assert_eq!(root(text, lib, "#![deny(unsafe_code)]"), ["crates/ossia-text/src/lib.rs:1"]);
    assert_eq!(root(text, lib, "// #![forbid(unsafe_code)]"), ["crates/ossia-text/src/lib.rs:1"]);
    assert_eq!(root(text, "crates/ossia-text/src/bin/x.rs", ""), ["crates/ossia-text/src/bin/x.rs:1"]);
    assert_eq!(
        root("crates/ossia-model/Cargo.toml", "crates/ossia-model/src/lib.rs", "#![deny(unsafe_code)]"),
        NOTHING
    );
    assert_eq!(root("crates/ossia-kernels/Cargo.toml", "crates/ossia-kernels/src/lib.rs", ""), NOTHING);
}

#[test]
fn arrows_point_down() {
    let up = "[package]\n[dependencies]\nserde.workspace = true\nossia-model.workspace = true\n[dev-dependencies]\nossia = { path = \"../ossia\" }\n";
    let down = "[package]\n[dependencies]\nossia-kernels.workspace = true\n[dependencies.ossia-text]\n";
    let kernels = "crates/ossia-kernels/Cargo.toml";
    assert_eq!(places(house::crate_arrows, &[(kernels, up)]), [format!("{kernels}:4"), format!("{kernels}:6")]);
    assert_eq!(places(house::crate_arrows, &[("crates/ossia-train/Cargo.toml", down)]), NOTHING);
    assert_eq!(
        places(house::crate_arrows, &[("crates/ossia-model/Cargo.toml", down)]),
        ["crates/ossia-model/Cargo.toml:4"]
    );
    assert_eq!(
        places(house::crate_arrows, &[("crates/ossia-new/Cargo.toml", "[package]\n")]),
        ["crates/ossia-new/Cargo.toml:1"]
    );
}

#[test]
fn op_folders_are_whole() {
    let op = |part: &str| format!("crates/ossia-kernels/src/ops/norm/{part}");
    let parts = ["mod.rs", "reference.rs", "tests.rs"].map(op);
    let all: Vec<(&str, &str)> = parts.iter().map(|path| (path.as_str(), "")).collect();
    assert_eq!(places(house::op_folders, &all), NOTHING);
    for missing in 0..all.len() {
        let mut some = all.clone();
        let (path, _) = some.remove(missing);
        assert_eq!(places(house::op_folders, &some), [format!("{path}:1")]);
    }
}

#[test]
fn dead_files_are_found() {
    let files = [
        ("a/Cargo.toml", "[package]\n"),
        ("a/src/lib.rs", "mod one;\npub mod two;\n#[path = \"odd/name.rs\"]\nmod three;\n// mod dead;\n"),
        ("a/src/one.rs", "mod inner;\n"),
        ("a/src/one/inner.rs", ""),
        ("a/src/two/mod.rs", "#[cfg(test)]\nmod tests;\n"),
        ("a/src/two/tests.rs", ""),
        ("a/src/odd/name.rs", ""),
        ("a/src/dead.rs", ""),
        ("a/src/inner.rs", ""),
        ("a/tests/end.rs", "mod common;\n"),
        ("a/tests/common/mod.rs", ""),
    ];
    assert_eq!(places(modules::dead_files, &files), ["a/src/dead.rs:1", "a/src/inner.rs:1"]);
}

#[test]
fn dead_links_are_found() {
    let page = "[a](b.md) [c](gone.md)\n[d](../README.md#top) [e](https://x.y) [f](#here) `[g](gone.md)`\n```\n[h](gone.md)\n```\n[i](../a/)\n";
    let files = [("docs/a.md", page), ("docs/b.md", ""), ("README.md", ""), ("a/x.toml", "")];
    assert_eq!(places(links::dead_links, &files), ["docs/a.md:1"]);
}

#[test]
fn stale_exceptions_are_found() {
    assert!(!tables::stale(&tree(&[])).is_empty());
}

#[test]
fn findings_say_file_line_and_what() {
    assert_eq!(Finding::new("a.rs", 3, "x: do y").to_string(), "a.rs:3: x: do y");
}
