//! What filters mean, in examples; what is refused, with the character it is about; and properties of
//! the parser over any text.

use std::time::Instant;

use proptest::prelude::*;

use super::parse::{DEPTH_MAX, parse};
use super::syntax::{Arithmetic, Comparison, Node, Syntax};
use super::*;
use crate::schema::{DeclaredType, ElementType, NewCollection, NewColumn, SchemaLimits};

fn schema(forward_columns: &[&str]) -> CollectionSchema {
    let column = NewColumn {
        name: "v".into(),
        index_type: 1,
        data_type: DeclaredType::Vector(ElementType::Fp32),
        dimension: 1,
        extra_params: Vec::new(),
    };
    let declared = NewCollection {
        name: "c".into(),
        forward_columns: forward_columns.iter().map(|name| (*name).into()).collect(),
        columns: vec![column],
        ..NewCollection::default()
    };
    let limits = SchemaLimits { dimension_max: 1, columns_max: 99 };
    CollectionSchema::new(declared, &limits, |_| false).expect("a schema")
}

fn params(params: &[(&str, FilterParam)]) -> Vec<(String, FilterParam)> {
    params.iter().map(|(name, param)| ((*name).to_owned(), param.clone())).collect()
}

fn filter(text: &str) -> Filter {
    let schema = schema(&["a", "b", "flag", "strange name"]);
    Filter::parse(text, &[], &schema).unwrap_or_else(|error| panic!("{text}: {error}"))
}

/// Checks what a filter says of rows with these values of `a` and `b`, and key 7.
fn check(text: &str, rows: &[(Option<Value>, Option<Value>)], expected: &[bool]) {
    let filter = filter(text);
    let matches = |(a, b): &(Option<Value>, Option<Value>)| {
        filter.matches(7, &[a.clone(), b.clone(), None, None])
    };
    let found: Vec<bool> = rows.iter().map(matches).collect();
    assert_eq!(found, expected, "{text} over {rows:?}");
}

fn int(number: i64) -> Option<Value> {
    Some(Value::Int64(number))
}

fn string(text: &str) -> Option<Value> {
    Some(Value::String(text.into()))
}

#[test]
fn comparisons_are_exact_over_all_kinds_of_numbers() {
    let one = |a| (Some(a), None);
    let rows = [
        one(Value::Int32(5)),
        one(Value::Int64(5)),
        one(Value::UInt32(5)),
        one(Value::UInt64(5)),
        one(Value::Float(5.0)),
        one(Value::Double(5.0)),
    ];
    for text in ["a == 5", "a == 5.0", "4 < a <= 5", "a >= 5", "a in [1, 5]", "not (a != 5)"] {
        check(text, &rows, &[true; 6]);
    }
    for text in ["a != 5", "a < 5", "5 < a", "a not in [5]", "a == '5'", "a == true"] {
        check(text, &rows, &[false; 6]);
    }
    let large = [
        one(Value::Int64((1 << 53) + 1)),
        one(Value::Double((1u64 << 53) as f64)),
        one(Value::UInt64(u64::MAX)),
        one(Value::Double(u64::MAX as f64)),
    ];
    check("a == 9007199254740992", &large, &[false, true, false, false]);
    check("a == 9007199254740993", &large, &[true, false, false, false]);
    check("a > 9007199254740992.0", &large, &[true, false, true, true]);
    check("a == 18446744073709551615", &large, &[false, false, true, false]);
    check("a > 18446744073709551615", &large, &[false, false, false, true]);
    // A float of 32 bits is worth what it is, which is not quite 0.1.
    check("a == 0.1", &[one(Value::Float(0.1)), one(Value::Double(0.1))], &[false, true]);
}

#[test]
fn nan_is_equal_to_nothing_and_different_from_all() {
    let nan = [(Some(Value::Double(f64::NAN)), int(1))];
    for text in ["a == a", "a < 1", "a >= 1", "a in [1]", "a == b"] {
        check(text, &nan, &[false]);
    }
    for text in ["a != 1", "a != a", "not (a < 1)", "a is not null", "a + 1 != 1"] {
        check(text, &nan, &[true]);
    }
}

#[test]
fn unset_is_unknown_and_unknown_is_not_found() {
    let rows = [(None, int(1)), (int(1), None), (None, None), (int(1), int(1))];
    check("a == 1", &rows, &[false, true, false, true]);
    check("not (a == 1)", &rows, &[false; 4]);
    check("a != 2", &rows, &[false, true, false, true]);
    check("not (a == 2)", &rows, &[false, true, false, true]);
    check("a is null", &rows, &[true, false, true, false]);
    check("a IS NOT NULL and b is null", &rows, &[false, true, false, false]);
    check("a == 1 or b == 1", &rows, &[true, true, false, true]);
    check("a == 1 and b == 1", &rows, &[false, false, false, true]);
    // Unknown and false is false, whatever the unknown may be.
    check("not (a == 1 and b == 2)", &rows, &[true, false, false, true]);
    check("not (a == 1 or b == 2)", &rows, &[false; 4]);
    check("a not in [2]", &rows, &[false, true, false, true]);
    check("not (a in [])", &rows, &[false, true, false, true]);
    check("a == b", &rows, &[false, false, false, true]);
    check("a + b == 2", &rows, &[false, false, false, true]);
    check("(a + b) is null", &rows, &[true, true, true, false]);
    check("not flag", &rows, &[false; 4]);
}

#[test]
fn unlike_kinds_are_not_equal_nor_different_nor_in_order() {
    let rows = [(string("5"), int(5)), (Some(Value::Bool(true)), int(1)), (int(1), string("x"))];
    for op in ["==", "!=", "<", "<=", ">", ">="] {
        check(&format!("a {op} b"), &rows, &[false; 3]);
        check(&format!("not (a {op} b)"), &rows, &[true; 3]);
    }
    check("a == '5'", &rows, &[true, false, false]);
    check("a == true", &rows, &[false, true, false]);
    check("a", &rows, &[false, true, false]);
    check("not a", &rows, &[true, false, true]);
    check("a in ['5', 1, true]", &rows, &[true, true, true]);
    check("a like '%'", &rows, &[true, false, false]);
    check("a not like '%'", &rows, &[false, true, true]);
    check("a + 1 > 0", &rows, &[false, false, true]);
    check("(a + 1) is null", &rows, &[true, true, false]);
    let bytes = |bytes: &'static [u8]| Some(Value::Bytes(bytes.into()));
    check(
        "a < b",
        &[(bytes(b"a\x00"), bytes(b"a\xff")), (string("a"), bytes(b"b"))],
        &[true, false],
    );
}

#[test]
fn operators_bind_as_in_arithmetic_and_python() {
    let rows = [(int(2), int(3))];
    for text in [
        "a + b * 2 == 8",
        "(a + b) * 2 == 10",
        "-a ** 2 == -4",
        "2 ** b ** a == 512",
        "2 ** -1 == 0.5",
        "10 - b - a == 5",
        "b / a == 1",
        "b / 2.0 == 1.5",
        "-7 % b == -1",
        "+a == 2",
        "- - a == 2",
        "1 < a < b <= 3",
        "3 >= b > a",
        "not a == 3 and b == 3",
        "!(a == 3) && b == 3 || false",
        "a == 9 and b == 9 or b == 3",
        "a == 2 or b == 9 and a == 9",
        "NOT a In [3] aNd b Not In [2,]",
        "_key == 7 and _key in [7]",
        "(a == 2) == (b == 3)",
        "(a == 2) == true",
        "true",
        "0x10 == 16 and 1e2 == 100",
        "a * 9223372036854775807 == 18446744073709551614",
        "'b' > 'a' and 'a' != 'b'",
        "`strange name` is null",
        "`a` == 2",
        "not not a == 2",
    ] {
        check(text, &rows, &[true]);
    }
    for text in [
        "a / 0 == 0",
        "a / 0 != 0",
        "a % 0 == 0",
        "1 / 0 == 1",
        "a * 18446744073709551615 > 0",
        "a - 9223372036854775807 - 9223372036854775807 < 0",
        "false or not true",
    ] {
        check(text, &rows, &[false]);
    }
}

#[test]
fn a_declared_column_wins_over_the_key() {
    let schema = schema(&["_key"]);
    let filter = Filter::parse("_key == 1", &[], &schema).expect("a filter");
    assert!(filter.matches(7, &[int(1)]) && !filter.matches(1, &[int(7)]));
}

#[test]
fn parameters_stand_for_values_and_lists() {
    let schema = schema(&["a", "b"]);
    let one = |value| FilterParam::One(value);
    let given = params(&[
        ("low", one(Value::Int32(1))),
        ("name", one(Value::String("50\\%_".into()))),
        ("blob", one(Value::Bytes(vec![0, 255].into()))),
        ("list", FilterParam::List(vec![Value::UInt64(u64::MAX), Value::Bytes(vec![1].into())])),
    ]);
    let text = "a > {low} and b like {name} or a == { blob } or a in {list} or a in [{low}]";
    let filter = Filter::parse(text, &given, &schema).expect("a filter");
    let matches = |a, b: Option<Value>| filter.matches(0, &[a, b]);
    assert!(matches(int(2), string("50%x")));
    assert!(!matches(int(2), string("50x")));
    assert!(matches(Some(Value::Bytes(vec![0, 255].into())), None));
    assert!(matches(Some(Value::Bytes(vec![1].into())), None));
    assert!(matches(Some(Value::UInt64(u64::MAX)), None) && matches(int(1), None));
    assert!(!matches(Some(Value::Bytes(vec![2].into())), None) && !matches(int(0), None));
}

fn refusal(text: &str, given: &[(String, FilterParam)]) -> Error {
    let schema = schema(&["colour", "size"]);
    Filter::parse(text, given, &schema).expect_err(text)
}

#[test]
fn a_refusal_points_at_the_character_and_says_what_was_expected() {
    for (text, at, words) in [
        ("", 1, "expected a column"),
        ("colour ==", 10, "found the end"),
        ("colour == )", 11, "expected a column, a number, a text in quotes"),
        ("colour = 5", 8, "expected \"==\", found \"=\""),
        ("(colour = 5)", 9, "expected \"==\", found \"=\""),
        ("(colour == 5", 13, "expected an operator or \")\", found the end"),
        ("colour == 5)", 12, "expected an operator or the end, found \")\""),
        ("colour == 5 5", 13, "expected an operator or the end, found \"5\""),
        ("colour in 5", 11, "expected a list"),
        ("colour in [1, colour]", 15, "expected a number, a text"),
        ("colour in [1 2]", 14, "expected \",\" or \"]\""),
        ("colour in [-'a']", 13, "expected a number after \"-\""),
        ("colour not 5", 12, "\"in\" or \"like\" after \"not\""),
        ("colour is 5", 11, "\"null\" or \"not null\""),
        ("colour like size", 13, "expected a pattern"),
        ("colour like 'a\\\\'", 13, "lone backslash"),
        ("colour == null", 11, "is null"),
        ("1 < size > 5", 10, "ranges go one way"),
        ("size == 1 == 2", 11, "does not continue"),
        ("size in [1] in [2]", 13, "\"and\" between"),
        ("size is null == true", 14, "\"and\" between"),
        ("lower(colour) == 'a'", 6, "no functions"),
        ("and == 1", 1, "in backticks"),
        ("5", 1, "expected a condition such as a == 1, found a number"),
        ("size + 1", 1, "expected a condition"),
        ("size == 1 and 'a'", 15, "expected a condition such as a == 1, found a text"),
        ("not 5", 5, "expected a condition"),
        ("-'a' == 1", 2, "expected a number, found a text"),
        ("size + (size == 1) > 1", 9, "expected a number, found a condition"),
        ("[1] == size", 1, "expected a column"),
        ("color == 1", 1, "did you mean \"colour\"?"),
        ("zzzz == 1", 1, "there is no forward column \"zzzz\""),
        ("v == 1", 1, "\"v\" is an index column"),
        ("size == {x}", 9, "parameter {x} has no value"),
        ("\u{e9} == 1 \u{e9}", 8, "found \"\u{e9}\""),
        ("size == 'a\nb", 9, "closing quote"),
        ("size == 5 ~ 2", 11, "unexpected '~'"),
    ] {
        match refusal(text, &[]) {
            Error::InvalidFilter { detail, position, excerpt } => {
                assert!(detail.contains(words), "{text}: {detail}");
                assert_eq!(position, Some(at), "{text}: {detail}");
                let (_, mark) = excerpt.rsplit_once('\n').expect("two lines");
                assert_eq!(mark.chars().count(), at + 2, "{text}: {excerpt}");
            }
            other => panic!("{text}: {other}"),
        }
    }
}

#[test]
fn parameters_that_do_not_fit_are_refused() {
    let one = params(&[("p", FilterParam::One(Value::Int32(1)))]);
    let list = params(&[("p", FilterParam::List(Vec::new()))]);
    for (text, given, words) in [
        ("size == {p}", &list, "a list, which goes behind \"in\""),
        ("size in {p}", &one, "one value; \"in\" asks for a list"),
        ("size like {p}", &one, "no text"),
        ("size == 1", &one, "parameter {p} is not in the filter"),
        ("size in [{p}]", &list, "goes behind \"in\""),
        ("{p}", &one, "expected a condition"),
        ("size == {q}", &one, "parameter {q} has no value"),
    ] {
        let words_found = refusal(text, given).to_string();
        assert!(words_found.contains(words), "{text}: {words_found}");
    }
}

#[test]
fn length_depth_and_lists_are_bounded() {
    let long = format!("size == 1{}", " ".repeat(TEXT_BYTES_MAX));
    let words = refusal(&long, &[]).to_string();
    assert!(words.contains("length of a filter") && words.contains("65536"), "{words}");
    let values = FilterParam::List(vec![Value::Bool(true); LIST_VALUES_MAX + 1]);
    let words = refusal("size in {p}", &params(&[("p", values)])).to_string();
    assert!(words.contains("1000001") && words.contains("1000000"), "{words}");
    for (open, close) in [("(", ")"), ("not ", ""), ("-", ""), ("1 ** ", ""), ("-(1 + ", ")")] {
        let deep = |times: usize| {
            let inner = if open == "not " { "true" } else { "1" };
            let text = format!("{}{inner}{}", open.repeat(times), close.repeat(times));
            if open == "not " { text } else { format!("{text} == 1") }
        };
        let schema = schema(&[]);
        assert!(Filter::parse(&deep(20), &[], &schema).is_ok(), "{open}");
        let words = Filter::parse(&deep(DEPTH_MAX + 1), &[], &schema).expect_err(open).to_string();
        assert!(words.contains("deeper than 64"), "{words}");
    }
    let chain = format!("1{} == 1", " + 1".repeat(DEPTH_MAX));
    assert!(refusal(&chain, &[]).to_string().contains("deeper than 64"));
    // Terms beside each other are as many as fit.
    let many = vec!["size == 1"; 5_000].join(" or ");
    assert!(Filter::parse(&many, &[], &schema(&["size"])).is_ok());
}

/// The longest texts of each kind that could be slow to read.
#[test]
fn reading_takes_time_in_proportion_to_the_length() {
    let fill = |part: &str| part.repeat(TEXT_BYTES_MAX / part.len());
    let texts = [
        fill("("),
        fill("not "),
        fill("!"),
        fill("-"),
        fill("["),
        fill("{a}"),
        fill("a and "),
        fill("1 < "),
        fill("2 ** "),
        fill("1+"),
        format!("a in [{}1]", "1,".repeat(30_000)),
        format!("a == '{}'", fill("x").get(..60_000).unwrap_or_default()),
        format!("a == '{}", fill("\\")),
        fill("a == 1 or "),
        fill("`"),
        fill("\u{e9}"),
        fill("((a or b) and "),
    ];
    let started = Instant::now();
    for text in &texts {
        let _ = Filter::parse(text, &[], &schema(&["a", "b"]));
    }
    // A megabyte in all: what is quadratic in the length would take minutes.
    assert!(started.elapsed().as_secs() < 20, "{:?}", started.elapsed());
}

fn node(syntax: Syntax) -> Node {
    Node::new(0, syntax)
}

fn any_leaf() -> impl Strategy<Value = Node> {
    prop_oneof![
        any::<bool>().prop_map(Syntax::Truth),
        any::<u64>().prop_map(Syntax::Integer),
        (0.0..f64::MAX).prop_map(Syntax::Real),
        (0.0..2.0f64).prop_map(Syntax::Real),
        // What backslashes stand for is the pattern's business: texts here have none before % and _.
        "[^\\\\]{0,9}".prop_map(Syntax::Text),
        Just(Syntax::Text("\\% \\_ \\ \"".into())),
        "[a-c_][a-z0-9]{0,2}".prop_map(Syntax::Name),
        "\\PC{1,4}".prop_map(Syntax::Name),
        "(in|NOT|`|a`b| )".prop_map(Syntax::Name),
        "[a-c]{1,2}".prop_map(Syntax::Parameter),
    ]
    .prop_map(node)
}

fn any_item() -> impl Strategy<Value = Node> {
    let number =
        prop_oneof![any::<u64>().prop_map(Syntax::Integer), (0.0..9.0f64).prop_map(Syntax::Real)];
    prop_oneof![
        number.clone().prop_map(node),
        number.prop_map(|number| node(Syntax::Negative(Box::new(node(number))))),
        "[^\\\\]{0,5}".prop_map(|text| node(Syntax::Text(text))),
        any::<bool>().prop_map(|truth| node(Syntax::Truth(truth))),
        "[a-c]".prop_map(|name| node(Syntax::Parameter(name))),
    ]
}

/// Trees that a parser can make, of any meaning.
fn any_tree() -> impl Strategy<Value = Node> {
    any_leaf().prop_recursive(5, 40, 4, |inner| {
        let boxed = || inner.clone().prop_map(Box::new);
        let terms = || proptest::collection::vec(inner.clone(), 2..4);
        let list = prop_oneof![
            proptest::collection::vec(any_item(), 0..4).prop_map(Syntax::List),
            "[a-c]".prop_map(Syntax::Parameter),
        ];
        let pattern = prop_oneof![
            "[a-c%_]{0,5}".prop_map(Syntax::Text),
            "[a-c]".prop_map(Syntax::Parameter),
        ];
        let range = prop_oneof![Just([2, 3]), Just([4, 5])];
        let chain = proptest::collection::vec((0..2usize, inner.clone()), 1..4);
        let chain = (inner.clone(), range, chain).prop_map(|(first, ways, rest)| {
            let rest = rest.into_iter().map(|(way, node)| (Comparison::ALL[ways[way]].1, node));
            Syntax::Compare(Box::new(first), rest.collect())
        });
        let equal = (boxed(), 0..2usize, inner.clone())
            .prop_map(|(a, op, b)| Syntax::Compare(a, vec![(Comparison::ALL[op].1, b)]));
        prop_oneof![
            boxed().prop_map(Syntax::Negative),
            (0..6usize, boxed(), boxed()).prop_map(|(op, a, b)| Syntax::Arithmetic(
                Arithmetic::ALL[op].1,
                a,
                b
            )),
            chain,
            equal,
            (boxed(), list).prop_map(|(a, list)| Syntax::In(a, Box::new(node(list)))),
            (boxed(), pattern).prop_map(|(a, text)| Syntax::Like(a, Box::new(node(text)))),
            boxed().prop_map(Syntax::IsNull),
            boxed().prop_map(Syntax::Not),
            terms().prop_map(Syntax::And),
            terms().prop_map(Syntax::Or),
        ]
        .prop_map(node)
    })
}

/// Text made of the words of the language, in any order.
fn any_words() -> impl Strategy<Value = String> {
    let names = "and|or|not|in|like|is|null|true|false|a|b|`c d`|_key";
    let values = "1|2.5|0x1f|'x'|\"%y_\"|\\{p\\}|~|\u{e9}|\n|'|`";
    let signs = "==|!=|<=|>=|<|>|\\+|-|\\*|/|%|\\*\\*|\\(|\\)|\\[|\\]|,|=|\\{|\\\\";
    let word = format!("({names}|{values}|{signs})");
    let word = proptest::string::string_regex(&word).expect("a pattern");
    proptest::collection::vec(word, 0..24).prop_map(|words| words.join(" "))
}

/// A text as it stands, with some of its characters left out, doubled, or others in their place.
fn any_damaged() -> impl Strategy<Value = String> {
    let edit = (
        any::<prop::sample::Index>(),
        0..4usize,
        "[\\PC'\"`(){}\\[\\]\\\\%_0-9.eE+-]{0,2}",
        0..3usize,
    );
    (any_tree(), proptest::collection::vec(edit, 1..6)).prop_map(|(tree, edits)| {
        let mut text: Vec<char> = tree.to_string().chars().collect();
        for (at, removed, added, doubled) in edits {
            let at = at.index(text.len() + 1);
            let end = (at + removed).min(text.len());
            let taken: Vec<char> = text.drain(at..end).collect();
            let put = added.chars().chain(taken.repeat(doubled));
            text.splice(at..at, put.collect::<Vec<char>>());
        }
        text.into_iter().collect()
    })
}

/// Reads a text; what is refused is refused at a character of it.
fn read_any(text: &str) {
    let given = params(&[("p", FilterParam::One(Value::Int32(1)))]);
    match Filter::parse(text, &given, &schema(&["a", "b", "c d"])) {
        Ok(filter) => {
            filter.matches(1, &[int(1), None, Some(Value::Double(0.5))]);
        }
        Err(Error::InvalidFilter { position, .. }) => {
            let characters = text.chars().count();
            assert!(position.is_none_or(|at| (1..=characters + 1).contains(&at)), "{text:?}");
        }
        Err(other) => panic!("{text:?}: {other}"),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    #[test]
    fn what_is_printed_is_read_as_the_same(tree in any_tree()) {
        let text = tree.to_string();
        match parse(&text) {
            Ok(read) => prop_assert_eq!(&read, &tree, "{}", text),
            Err(fault) => prop_assert!(false, "{}: {:?}", text, fault),
        }
    }

    #[test]
    fn any_text_is_read_or_refused(text in "\\PC{0,40}", raw in any::<String>()) {
        read_any(&text);
        read_any(&raw);
    }

    #[test]
    fn any_damaged_text_is_read_or_refused(text in any_damaged()) {
        read_any(&text);
    }

    #[test]
    fn any_words_are_read_or_refused(text in any_words()) {
        read_any(&text);
    }
}
