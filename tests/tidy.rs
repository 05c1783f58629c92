//! House rules as tests: where things may live, what may import what, and that ARCHITECTURE.md tells the
//! truth about its invariants. A rule that fails names the file, the line and what to do.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Modules of `src` by layer, highest first. A module may use modules of lower layers only; two modules
/// of one layer do not know each other.
const LAYERS: &[&[&str]] = &[
    &["main"],
    &["cli"],
    &["bench", "transfer"],
    &["telemetry", "server", "files"],
    &["database"],
    &["collection"],
    &["query"],
    &["segment"],
    &["index", "wal", "manifest", "embedding"],
    &["storage"],
    &["native"],
    &["simd", "compute"],
    &["memory"],
    &["schema"],
    &["config", "cancel"],
    &["error", "ids"],
];

/// Lines of a source file before its tests.
const FILE_LINES_MAX: usize = 700;

/// One source file.
struct Source {
    /// Relative to the repository.
    path: PathBuf,
    /// As written.
    text: String,
    /// The same with comments, strings and characters blanked; every byte stays at its place.
    code: String,
}

impl Source {
    /// The module below `src` this file belongs to: its folder, or its own name.
    fn module(&self) -> String {
        let below = self.path.strip_prefix("src").expect("only files of src are asked");
        let first = below.iter().next().expect("a file has a name");
        Path::new(first).with_extension("").display().to_string()
    }

    /// Line number of a position in the text.
    fn line(&self, at: usize) -> usize {
        self.text[..at].matches('\n').count() + 1
    }

    fn is_test_only(&self) -> bool {
        self.path.file_name().is_some_and(|name| name == "tests.rs")
            || self.path.components().any(|part| part.as_os_str() == "tests")
    }
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// All files below a folder with this extension, sorted.
fn files(folder: &str, extension: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![root().join(folder)];
    while let Some(folder) = folders.pop() {
        let Ok(entries) = std::fs::read_dir(&folder) else { continue };
        for entry in entries {
            let path = entry.expect("the entry can be read").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|e| e == extension) {
                found.push(path.strip_prefix(root()).expect("below the root").to_owned());
            }
        }
    }
    found.sort();
    found
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(root().join(path)).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

fn sources(folder: &str) -> Vec<Source> {
    let load = |path: PathBuf| {
        let text = read(&path);
        let code = mask(&text);
        Source { path, text, code }
    };
    let found: Vec<Source> = files(folder, "rs").into_iter().map(load).collect();
    assert!(!found.is_empty(), "no sources in {folder}");
    found
}

/// Blanks comments, strings and character literals, so that words in prose are not taken for code.
fn mask(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut masked = bytes.to_vec();
    let mut at = 0;
    while at < bytes.len() {
        let rest = &bytes[at..];
        let word_before = at > 0 && is_word(bytes[at - 1]);
        let length = if rest.starts_with(b"//") {
            rest.iter().position(|&b| b == b'\n').unwrap_or(rest.len())
        } else if rest.starts_with(b"/*") {
            block_comment(rest)
        } else if rest[0] == b'"' {
            quoted(rest)
        } else if !word_before && let Some(length) = raw_string(rest) {
            length
        } else if rest[0] == b'\'' {
            character(rest)
        } else {
            at += 1;
            continue;
        };
        for byte in &mut masked[at..at + length] {
            if *byte != b'\n' {
                *byte = b' ';
            }
        }
        at += length;
    }
    // Only whole literals and comments were blanked, so what is left is still UTF-8.
    String::from_utf8(masked).expect("masking keeps characters whole")
}

fn block_comment(rest: &[u8]) -> usize {
    let (mut depth, mut at) = (0, 0);
    while at < rest.len() {
        if rest[at..].starts_with(b"/*") {
            depth += 1;
            at += 2;
        } else if rest[at..].starts_with(b"*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                break;
            }
        } else {
            at += 1;
        }
    }
    at
}

fn quoted(rest: &[u8]) -> usize {
    let mut at = 1;
    while at < rest.len() && rest[at] != b'"' {
        at += if rest[at] == b'\\' { 2 } else { 1 };
    }
    (at + 1).min(rest.len())
}

/// Length of a raw string such as `r#"..."#` at the start of `rest`.
fn raw_string(rest: &[u8]) -> Option<usize> {
    let prefix = if rest.starts_with(b"br") { 2 } else { usize::from(rest[0] == b'r') };
    let hashes = rest[prefix..].iter().take_while(|&&b| b == b'#').count();
    if prefix == 0 || rest.get(prefix + hashes) != Some(&b'"') {
        return None;
    }
    let end = [&b"\""[..], &b"#".repeat(hashes)].concat();
    let body = prefix + hashes + 1;
    let length = rest[body..].windows(end.len()).position(|w| w == end)?;
    Some(body + length + end.len())
}

/// Length of a character literal; a lifetime counts as its quote alone.
fn character(rest: &[u8]) -> usize {
    if rest.get(1) == Some(&b'\\') {
        return rest.iter().skip(3).position(|&b| b == b'\'').map_or(1, |end| end + 4);
    }
    let length = std::str::from_utf8(&rest[1..rest.len().min(5)])
        .or_else(|e| std::str::from_utf8(&rest[1..1 + e.valid_up_to()]))
        .ok()
        .and_then(|text| text.chars().next())
        .map_or(1, char::len_utf8);
    if rest.get(1 + length) == Some(&b'\'') { length + 2 } else { 1 }
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

/// Where a word stands on its own.
fn words<'a>(code: &'a str, word: &'a str) -> impl Iterator<Item = usize> + 'a {
    let bytes = code.as_bytes();
    code.match_indices(word).map(|(at, _)| at).filter(move |&at| {
        let before = at > 0 && is_word(bytes[at - 1]);
        let after = bytes.get(at + word.len()).is_some_and(|&b| is_word(b));
        !before && !after
    })
}

/// Where a path begins with this crate's name: `name::`, but not `other::name::`.
fn crate_paths<'a>(code: &'a str, name: &'a str) -> impl Iterator<Item = usize> + 'a {
    words(code, name)
        .filter(move |&at| code[at + name.len()..].starts_with("::") && !code[..at].ends_with("::"))
}

/// Fails with every finding at once.
fn report(rule: &str, findings: Vec<String>) {
    assert!(findings.is_empty(), "{rule}:\n  {}", findings.join("\n  "));
}

/// Finds crate names outside the places where they may be named.
fn crates_only_in(names: &[&str], allowed: impl Fn(&Path) -> bool) -> Vec<String> {
    let mut findings = Vec::new();
    for source in sources("src").iter().filter(|source| !allowed(&source.path)) {
        for name in names {
            for at in crate_paths(&source.code, name) {
                findings.push(format!("{}:{}: {name}", source.path.display(), source.line(at)));
            }
        }
    }
    findings
}

/// Modules of this crate named in `code`, with where: `crate::a`, also in `crate::{a, b::c}`.
fn imports(code: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    for at in crate_paths(code, "crate") {
        let start = at + "crate::".len();
        if !code[start..].starts_with('{') {
            let name: String =
                code[start..].bytes().take_while(|&b| is_word(b)).map(char::from).collect();
            found.push((at, name));
            continue;
        }
        let (mut depth, mut expects_name) = (0, false);
        let mut name = String::new();
        for byte in code[start..].bytes() {
            match byte {
                b'{' => {
                    depth += 1;
                    expects_name = depth == 1;
                }
                b',' if depth == 1 => expects_name = true,
                byte if depth == 1 && expects_name && is_word(byte) => {
                    name.push(char::from(byte));
                    continue;
                }
                _ => {}
            }
            if !name.is_empty() {
                found.push((at, std::mem::take(&mut name)));
                expects_name = byte == b',';
            }
            depth -= usize::from(byte == b'}');
            if depth == 0 {
                break;
            }
        }
    }
    found
}

fn layer(module: &str) -> Option<usize> {
    LAYERS.iter().position(|layer| layer.contains(&module))
}

#[test]
fn imports_point_down() {
    let mut findings = Vec::new();
    for source in sources("src") {
        let module = source.module();
        if module == "lib" {
            continue;
        }
        let Some(own) = layer(&module) else {
            findings.push(format!(
                "{}: module {module} is not in LAYERS of tests/tidy.rs",
                source.path.display()
            ));
            continue;
        };
        for (at, used) in imports(&source.code) {
            let allowed = used == module || layer(&used).is_some_and(|used| used > own);
            // Macros and names that the crate root itself exports are no modules.
            let is_module = root().join("src").join(&used).is_dir()
                || root().join("src").join(format!("{used}.rs")).is_file();
            if is_module && !allowed {
                findings.push(format!(
                    "{}:{}: {module} must not use {used}",
                    source.path.display(),
                    source.line(at)
                ));
            }
        }
    }
    report("imports point down (LAYERS in tests/tidy.rs)", findings);
}

#[test]
fn unsafe_lives_in_native_and_simd_only() {
    let mut findings = Vec::new();
    for source in sources("src") {
        if matches!(source.module().as_str(), "native" | "simd") {
            continue;
        }
        for at in words(&source.code, "unsafe") {
            findings.push(format!("{}:{}", source.path.display(), source.line(at)));
        }
    }
    report("unsafe code lives in src/native and src/simd only", findings);
}

#[test]
fn protocol_types_stop_at_the_server() {
    let names = [
        "prost",
        "prost_types",
        "tonic",
        "tonic_prost",
        "tonic_health",
        "tonic_reflection",
        "axum",
        "tower",
        "http",
        "hyper",
        "hyper_util",
    ];
    let findings = crates_only_in(&names, |path| path.starts_with("src/server"));
    report("protobuf, gRPC and HTTP crates are named under src/server only", findings);
}

#[test]
fn foreign_libraries_stay_behind_one_door() {
    let findings = crates_only_in(&["faiss", "faiss_sys"], |path| path.starts_with("src/native"));
    report("faiss is named under src/native only", findings);

    for name in ["sled", "ort", "reqwest"] {
        let users: Vec<PathBuf> = sources("src")
            .into_iter()
            .filter(|source| crate_paths(&source.code, name).next().is_some())
            .map(|source| source.path)
            .collect();
        assert_eq!(users.len(), 1, "{name} is named in exactly one file, not in {users:?}");
    }
    let decoders = ["image", "tiff", "turbojpeg", "fast_image_resize"];
    let findings = crates_only_in(&decoders, |path| path.starts_with("src/embedding"));
    report("decoders of pictures are named under src/embedding only", findings);
}

#[test]
fn files_stay_short() {
    let mut findings = Vec::new();
    for source in sources("src").iter().filter(|source| !source.is_test_only()) {
        let before_tests = source.code.find("#[cfg(test)]\nmod ").unwrap_or(source.code.len());
        let lines = source.text[..before_tests].lines().count();
        if lines > FILE_LINES_MAX {
            findings.push(format!("{}: {lines} lines; split it by concept", source.path.display()));
        }
    }
    report(&format!("at most {FILE_LINES_MAX} lines before the tests"), findings);
}

#[test]
fn every_file_opens_with_what_it_owns() {
    let findings = sources("src")
        .iter()
        .filter(|source| !source.text.starts_with("//! "))
        .map(|source| source.path.display().to_string())
        .collect();
    report("a file under src opens with a `//!` comment", findings);
}

#[test]
fn nothing_is_left_for_later() {
    let mut findings = Vec::new();
    for folder in ["src", "tests"] {
        for source in sources(folder) {
            for name in ["todo", "unimplemented", "dbg"] {
                for at in words(&source.code, name) {
                    if source.code[at + name.len()..].starts_with('!') {
                        let place = source.path.display();
                        findings.push(format!("{place}:{}: {name}!", source.line(at)));
                    }
                }
            }
        }
    }
    report("no todo!, unimplemented! or dbg!", findings);
}

/// The words in backticks of a table cell.
fn ticked(cell: &str) -> Vec<&str> {
    cell.split('`').skip(1).step_by(2).collect()
}

/// Rows `| I7 | text | `symbol` | `test name` |` of ARCHITECTURE.md: number, symbols, tests.
fn invariants(text: &str) -> Vec<(usize, Vec<&str>, Vec<&str>)> {
    let mut rows = Vec::new();
    for line in text.lines().filter(|line| line.starts_with('|')) {
        let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
        let number = cells[0].strip_prefix('I').and_then(|number| number.parse().ok());
        if let (Some(number), [_, _, symbols, tests]) = (number, cells.as_slice()) {
            rows.push((number, ticked(symbols), ticked(tests)));
        }
    }
    rows
}

/// Everything that can be named: items by their keyword, and variants and fields at a line's start.
fn defines(code: &str, name: &str) -> bool {
    words(code, name).any(|at| {
        let line = code[..at].rfind('\n').map_or(0, |newline| newline + 1);
        let before = code[line..at].trim();
        let keyword = before.rsplit(' ').next().unwrap_or_default();
        let keywords = ["fn", "struct", "enum", "trait", "const", "static", "type", "mod"];
        keywords.contains(&keyword)
            || ["", "pub", "pub(crate)", "pub(super)"].contains(&before)
                && code[at + name.len()..].trim_start().starts_with([':', ',', '(', '{'])
    })
}

#[test]
fn every_invariant_has_a_symbol_and_a_test() {
    let path = Path::new("ARCHITECTURE.md");
    assert!(root().join(path).is_file(), "ARCHITECTURE.md with the numbered invariants is missing");
    let text = read(path);
    let rows = invariants(&text);
    assert!(
        !rows.is_empty(),
        "ARCHITECTURE.md has no row `| I1 | text | `symbol` | `test name` |`"
    );

    let code: Vec<Source> = sources("src");
    let mut tests: Vec<String> = code
        .iter()
        .map(|s| s.code.clone())
        .chain(sources("tests").into_iter().map(|s| s.code))
        .collect();
    tests.extend(files("tests", "py").iter().map(|path| read(path).replace("def ", "fn ")));

    let mut findings = Vec::new();
    let mut seen: BTreeMap<usize, usize> = BTreeMap::new();
    for (number, symbols, named_tests) in rows {
        *seen.entry(number).or_default() += 1;
        if symbols.is_empty() || named_tests.is_empty() {
            findings.push(format!("I{number} lacks a symbol or a test in backticks"));
        }
        for symbol in symbols {
            for part in symbol.trim_end_matches("()").split("::").filter(|part| *part != "crate") {
                if !code.iter().any(|source| defines(&source.code, part)) {
                    findings
                        .push(format!("I{number}: symbol {symbol}: {part} is not defined in src"));
                }
            }
        }
        for test in named_tests {
            // `tests/file.rs::name`, `module::tests::name` or just `name`.
            let name = test.rsplit("::").next().unwrap_or(test).trim_end_matches("()");
            let function = format!("fn {name}(");
            if !tests.iter().any(|text| text.contains(&function)) {
                findings.push(format!("I{number}: there is no test {test}"));
            }
        }
    }
    for (position, (number, count)) in seen.into_iter().enumerate() {
        if number != position + 1 || count != 1 {
            findings.push(format!("I{number} breaks the numbering 1, 2, 3, ..."));
        }
    }
    report("ARCHITECTURE.md names what exists", findings);
}

#[test]
fn the_rules_see_what_they_should() {
    let text = "a /* unsafe /* x */ y */ b // unsafe\n\"un\\\"safe\" r#\"dbg!\"# 'x' '\\'' fn f<'a>(é: &'a u8) {}";
    let masked = mask(text);
    assert_eq!(masked.len(), text.len());
    assert!(!masked.contains("unsafe") && !masked.contains("dbg") && !masked.contains('x'));
    assert!(masked.contains("fn f<'a>(é: &'a u8) {}") || masked.contains("fn f< a>(é: & a u8) {}"));

    let names = |code| imports(code).into_iter().map(|(_, name)| name).collect::<Vec<_>>();
    assert_eq!(names("use crate::schema::{A, B};"), ["schema"]);
    assert_eq!(
        names("use crate::{wal::{self, x}, index, error::E as F};"),
        ["wal", "index", "error"]
    );
    assert_eq!(names("use other::crate_name; crate::simd::f();"), ["simd"]);

    assert_eq!(crate_paths("use sled::Db;", "sled").count(), 1);
    assert_eq!(crate_paths("use crate::native::faiss::Index;", "faiss").count(), 0);
    assert!(defines("pub(crate) fn apply(", "apply") && defines("enum E {\n  Power,\n}", "Power"));
    assert!(!defines("let x = apply(y);", "apply"));
    assert_eq!(
        invariants("| I7 | a row | `A::b`, `c` | `d` |"),
        [(7, vec!["A::b", "c"], vec!["d"])]
    );
}
