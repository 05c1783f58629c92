//! A filter as it was written: the tree that the parser makes, before names and parameters mean
//! anything. Displayed, it reads as a filter again.

use std::fmt;

use super::token::is_bare;

/// A part of a filter and the byte where it begins. Two parts are equal wherever they stand.
#[derive(Debug, Clone)]
pub(super) struct Node {
    pub at: usize,
    pub syntax: Syntax,
    /// Nodes from here to the deepest, 1 for one without parts.
    pub height: usize,
}

impl Node {
    pub fn new(at: usize, syntax: Syntax) -> Self {
        let highest = |nodes: &[Node]| nodes.iter().map(|node| node.height).max().unwrap_or(0);
        let below = match &syntax {
            Syntax::Truth(_)
            | Syntax::Integer(_)
            | Syntax::Real(_)
            | Syntax::Text(_)
            | Syntax::Name(_)
            | Syntax::Parameter(_) => 0,
            Syntax::Negative(inner) | Syntax::IsNull(inner) | Syntax::Not(inner) => inner.height,
            Syntax::Arithmetic(_, left, right)
            | Syntax::In(left, right)
            | Syntax::Like(left, right) => left.height.max(right.height),
            Syntax::Compare(first, rest) => {
                rest.iter().map(|(_, node)| node.height).fold(first.height, usize::max)
            }
            Syntax::List(nodes) | Syntax::And(nodes) | Syntax::Or(nodes) => highest(nodes),
        };
        Node { at, syntax, height: below + 1 }
    }
}

impl PartialEq for Node {
    fn eq(&self, other: &Self) -> bool {
        self.syntax == other.syntax
    }
}

/// What a part of a filter is.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Syntax {
    Truth(bool),
    Integer(u64),
    Real(f64),
    Text(String),
    /// A column by its name.
    Name(String),
    /// `{name}`.
    Parameter(String),
    /// `[a, b]`, on the right side of `in` only.
    List(Vec<Node>),
    /// `-a`.
    Negative(Box<Node>),
    /// `a + b`.
    Arithmetic(Arithmetic, Box<Node>, Box<Node>),
    /// `a < b <= c`: as many operators as there are nodes after the first.
    Compare(Box<Node>, Vec<(Comparison, Node)>),
    /// `a in b`.
    In(Box<Node>, Box<Node>),
    /// `a like b`.
    Like(Box<Node>, Box<Node>),
    /// `a is null`.
    IsNull(Box<Node>),
    /// `not a`.
    Not(Box<Node>),
    /// `a and b and c`: two at least.
    And(Vec<Node>),
    /// `a or b or c`: two at least.
    Or(Vec<Node>),
}

/// A comparison.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Comparison {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

impl Comparison {
    pub const ALL: [(&'static str, Comparison); 6] = [
        ("==", Comparison::Equal),
        ("!=", Comparison::NotEqual),
        ("<", Comparison::Less),
        ("<=", Comparison::LessOrEqual),
        (">", Comparison::Greater),
        (">=", Comparison::GreaterOrEqual),
    ];

    /// True where `next` may follow in a chain: both bound the middle, from both sides.
    pub fn chains_with(self, next: Comparison) -> bool {
        use Comparison::{Greater, GreaterOrEqual, Less, LessOrEqual};
        matches!(
            (self, next),
            (Less | LessOrEqual, Less | LessOrEqual)
                | (Greater | GreaterOrEqual, Greater | GreaterOrEqual)
        )
    }
}

/// An operation on two numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Arithmetic {
    Add,
    Subtract,
    Multiply,
    Divide,
    Remainder,
    Power,
}

impl Arithmetic {
    pub const ALL: [(&'static str, Arithmetic); 6] = [
        ("+", Arithmetic::Add),
        ("-", Arithmetic::Subtract),
        ("*", Arithmetic::Multiply),
        ("/", Arithmetic::Divide),
        ("%", Arithmetic::Remainder),
        ("**", Arithmetic::Power),
    ];
}

/// The sign of an operator, from its table of all.
fn sign<T: PartialEq + Copy>(all: &[(&'static str, T)], wanted: T) -> &'static str {
    all.iter().find(|(_, known)| *known == wanted).map_or("", |(sign, _)| sign)
}

impl fmt::Display for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.syntax {
            Syntax::Truth(truth) => write!(f, "{truth}"),
            Syntax::Integer(number) => write!(f, "{number}"),
            Syntax::Real(number) => write!(f, "{number:?}"),
            Syntax::Text(text) => quote(f, text),
            Syntax::Name(name) if is_bare(name) => f.write_str(name),
            Syntax::Name(name) => write!(f, "`{}`", name.replace('`', "``")),
            Syntax::Parameter(name) => write!(f, "{{{name}}}"),
            Syntax::List(items) => {
                f.write_str("[")?;
                for (place, item) in items.iter().enumerate() {
                    write!(f, "{}{item}", if place == 0 { "" } else { ", " })?;
                }
                f.write_str("]")
            }
            Syntax::Negative(inner) => write!(f, "-{}", Inner(inner)),
            Syntax::Arithmetic(op, left, right) => {
                write!(f, "{} {} {}", Inner(left), sign(&Arithmetic::ALL, *op), Inner(right))
            }
            Syntax::Compare(first, rest) => {
                write!(f, "{}", Inner(first))?;
                rest.iter().try_for_each(|(op, node)| {
                    write!(f, " {} {}", sign(&Comparison::ALL, *op), Inner(node))
                })
            }
            Syntax::In(left, right) => write!(f, "{} in {}", Inner(left), Inner(right)),
            Syntax::Like(left, right) => write!(f, "{} like {}", Inner(left), Inner(right)),
            Syntax::IsNull(inner) => write!(f, "{} is null", Inner(inner)),
            Syntax::Not(inner) => write!(f, "not {}", Inner(inner)),
            Syntax::And(terms) => separated(f, terms, " and "),
            Syntax::Or(terms) => separated(f, terms, " or "),
        }
    }
}

fn separated(f: &mut fmt::Formatter<'_>, nodes: &[Node], separator: &str) -> fmt::Result {
    nodes.iter().enumerate().try_for_each(|(place, node)| {
        let before = if place == 0 { "" } else { separator };
        write!(f, "{before}{}", Inner(node))
    })
}

fn quote(f: &mut fmt::Formatter<'_>, text: &str) -> fmt::Result {
    f.write_str("\"")?;
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        match c {
            // These two are kept as they are, backslash included.
            '\\' if rest.starts_with("\\%") || rest.starts_with("\\_") => {
                f.write_str(&rest[..2])?;
                rest = &rest[2..];
                continue;
            }
            '"' | '\\' => write!(f, "\\{c}")?,
            c if c.is_control() => write!(f, "\\U{:08x}", u32::from(c))?,
            c => write!(f, "{c}")?,
        }
        rest = &rest[c.len_utf8()..];
    }
    f.write_str("\"")
}

/// A part within another: in parentheses where it has parts itself.
struct Inner<'a>(&'a Node);

impl fmt::Display for Inner<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0.syntax {
            Syntax::Truth(_)
            | Syntax::Integer(_)
            | Syntax::Real(_)
            | Syntax::Text(_)
            | Syntax::Name(_)
            | Syntax::Parameter(_)
            | Syntax::List(_) => write!(f, "{}", self.0),
            _ => write!(f, "({})", self.0),
        }
    }
}
