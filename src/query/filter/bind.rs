//! From the tree of a filter to what it means for a collection: names become columns, parameters their
//! values, and what can never mean anything is refused.

use super::expr::{Constant, Expr, PlainRow};
use super::fault::Fault;
use super::pattern::Pattern;
use super::syntax::{Node, Syntax};
use super::value_set::ValueSet;
use crate::schema::{CollectionSchema, Datum, FilterParam, Number, Value};

/// The primary key's name, unless a forward column has it.
const KEY: &str = "_key";

/// Most similar names that a refusal offers.
const SIMILAR: f64 = 0.7;

/// What the names and parameters of a filter stand for.
pub(super) struct Binder<'a> {
    schema: &'a CollectionSchema,
    params: &'a [(String, FilterParam)],
    is_used: Vec<bool>,
}

/// What a part of a filter is in every row, as far as that is known beforehand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Anything.
    Any,
    Condition,
    Number,
    Text,
    Bytes,
}

impl Expr {
    fn kind(&self) -> Kind {
        match self {
            // Nothing is known of what has no value.
            Expr::Column(_) | Expr::Constant(Constant::Null) => Kind::Any,
            Expr::Constant(Constant::Text(_)) => Kind::Text,
            Expr::Constant(Constant::Bytes(_)) => Kind::Bytes,
            Expr::Constant(Constant::Number(_))
            | Expr::Key
            | Expr::Negative(_)
            | Expr::Arithmetic(..) => Kind::Number,
            Expr::Constant(Constant::Truth(_))
            | Expr::Compare(..)
            | Expr::In(..)
            | Expr::Like(..)
            | Expr::IsNull(_)
            | Expr::Not(_)
            | Expr::And(_)
            | Expr::Or(_) => Kind::Condition,
        }
    }

    /// The part, or its value where it has the same one in every row.
    fn folded(self, is_constant: bool) -> Expr {
        if !is_constant {
            return self;
        }
        let value = self.value(&PlainRow { key: 0, forward: &[] });
        Expr::Constant(Constant::from(value))
    }

    fn is_constant(&self) -> bool {
        matches!(self, Expr::Constant(_))
    }
}

impl<'a> Binder<'a> {
    pub fn new(schema: &'a CollectionSchema, params: &'a [(String, FilterParam)]) -> Self {
        Binder { schema, params, is_used: vec![false; params.len()] }
    }

    /// The name of a parameter that nothing asked for.
    pub fn unused(&self) -> Option<&'a str> {
        let place = self.is_used.iter().position(|is_used| !is_used)?;
        Some(&self.params[place].0)
    }

    /// A part that holds or does not.
    pub fn condition(&mut self, node: &Node) -> Result<Expr, Fault> {
        let expr = self.value(node)?;
        match expr.kind() {
            Kind::Any | Kind::Condition => Ok(expr),
            kind => Err(found(node, "a condition such as a == 1", kind)),
        }
    }

    fn number(&mut self, node: &Node) -> Result<Expr, Fault> {
        let expr = self.value(node)?;
        match expr.kind() {
            Kind::Any | Kind::Number => Ok(expr),
            kind => Err(found(node, "a number", kind)),
        }
    }

    fn value(&mut self, node: &Node) -> Result<Expr, Fault> {
        let constant = |constant| Ok(Expr::Constant(constant));
        let number = |number| constant(Constant::Number(number));
        match &node.syntax {
            Syntax::Truth(truth) => constant(Constant::Truth(*truth)),
            Syntax::Integer(integer) => number(Number::Int((*integer).into())),
            Syntax::Real(real) => number(Number::Float(*real)),
            Syntax::Text(text) => constant(Constant::Text(text.clone())),
            Syntax::Name(name) => self.name(name, node.at),
            Syntax::Parameter(name) => match self.param(name, node.at)? {
                FilterParam::One(value) => constant(Constant::from(Datum::from(value))),
                FilterParam::List(_) => {
                    let detail =
                        format!("parameter {{{name}}} is a list, which goes behind \"in\"");
                    Err(Fault::new(node.at, detail))
                }
            },
            Syntax::List(_) => Err(Fault::new(node.at, "a list goes behind \"in\"")),
            Syntax::Negative(inner) => {
                let inner = self.number(inner)?;
                let is_constant = inner.is_constant();
                Ok(Expr::Negative(Box::new(inner)).folded(is_constant))
            }
            Syntax::Arithmetic(operator, left, right) => {
                let (left, right) = (self.number(left)?, self.number(right)?);
                let is_constant = left.is_constant() && right.is_constant();
                let expr = Expr::Arithmetic(*operator, Box::new(left), Box::new(right));
                Ok(expr.folded(is_constant))
            }
            Syntax::Compare(first, rest) => {
                let first = self.value(first)?;
                let rest =
                    rest.iter().map(|(comparison, node)| Ok((*comparison, self.value(node)?)));
                let rest = rest.collect::<Result<Vec<_>, Fault>>()?;
                let is_constant =
                    first.is_constant() && rest.iter().all(|(_, expr)| expr.is_constant());
                Ok(Expr::Compare(Box::new(first), rest).folded(is_constant))
            }
            Syntax::In(inner, list) => {
                let (inner, set) = (self.value(inner)?, self.list(list)?);
                let is_constant = inner.is_constant();
                Ok(Expr::In(Box::new(inner), set).folded(is_constant))
            }
            Syntax::Like(inner, pattern) => {
                let (inner, pattern) = (self.value(inner)?, self.pattern(pattern)?);
                let is_constant = inner.is_constant();
                Ok(Expr::Like(Box::new(inner), pattern).folded(is_constant))
            }
            Syntax::IsNull(inner) => {
                let inner = self.value(inner)?;
                let is_constant = inner.is_constant();
                Ok(Expr::IsNull(Box::new(inner)).folded(is_constant))
            }
            Syntax::Not(inner) => {
                let inner = self.condition(inner)?;
                let is_constant = inner.is_constant();
                Ok(Expr::Not(Box::new(inner)).folded(is_constant))
            }
            Syntax::And(terms) => Ok(Expr::And(self.conditions(terms)?)),
            Syntax::Or(terms) => Ok(Expr::Or(self.conditions(terms)?)),
        }
    }

    fn conditions(&mut self, terms: &[Node]) -> Result<Vec<Expr>, Fault> {
        terms.iter().map(|term| self.condition(term)).collect()
    }

    fn list(&mut self, node: &Node) -> Result<ValueSet, Fault> {
        match &node.syntax {
            Syntax::List(items) => {
                let items = items.iter().map(|item| match self.value(item)? {
                    Expr::Constant(constant) => Ok(constant),
                    _ => Err(Fault::new(item.at, "expected a value that is the same in every row")),
                });
                let items = items.collect::<Result<Vec<Constant>, Fault>>()?;
                Ok(items.iter().map(Constant::datum).collect())
            }
            Syntax::Parameter(name) => match self.param(name, node.at)? {
                FilterParam::List(values) => Ok(values.iter().map(Datum::from).collect()),
                FilterParam::One(_) => {
                    let detail =
                        format!("parameter {{{name}}} is one value; \"in\" asks for a list");
                    Err(Fault::new(node.at, detail))
                }
            },
            _ => Err(Fault::new(node.at, "expected a list")),
        }
    }

    fn pattern(&mut self, node: &Node) -> Result<Pattern, Fault> {
        let text = match &node.syntax {
            Syntax::Text(text) => text,
            Syntax::Parameter(name) => match self.param(name, node.at)? {
                FilterParam::One(Value::String(text)) => text,
                _ => {
                    let detail = format!("parameter {{{name}}} is no text; \"like\" asks for one");
                    return Err(Fault::new(node.at, detail));
                }
            },
            _ => return Err(Fault::new(node.at, "expected a pattern")),
        };
        Pattern::new(text).map_err(|detail| Fault::new(node.at, detail))
    }

    fn name(&self, name: &str, at: usize) -> Result<Expr, Fault> {
        let columns = &self.schema.forward_columns;
        if let Some(column) = columns.iter().position(|known| known == name) {
            return Ok(Expr::Column(column));
        }
        if name == KEY {
            return Ok(Expr::Key);
        }
        if self.schema.column_position(name).is_some() {
            let detail = format!("{name:?} is an index column; filters are over forward columns");
            return Err(Fault::new(at, detail));
        }
        let detail = match similar(name, columns.iter().map(String::as_str).chain([KEY])) {
            Some(known) => format!("there is no forward column {name:?}; did you mean {known:?}?"),
            None => format!("there is no forward column {name:?}"),
        };
        Err(Fault::new(at, detail))
    }

    fn param(&mut self, name: &str, at: usize) -> Result<&'a FilterParam, Fault> {
        let params = self.params;
        let names = || params.iter().map(|(known, _)| known.as_str());
        match names().position(|known| known == name) {
            Some(place) => {
                self.is_used[place] = true;
                Ok(&params[place].1)
            }
            None => {
                let detail = match similar(name, names()) {
                    Some(known) => {
                        format!("parameter {{{name}}} has no value; did you mean {{{known}}}?")
                    }
                    None => format!("parameter {{{name}}} has no value"),
                };
                Err(Fault::new(at, detail))
            }
        }
    }
}

/// The known name that a caller may have meant.
fn similar<'n>(name: &str, known: impl Iterator<Item = &'n str>) -> Option<&'n str> {
    // Longer names would take long to compare.
    let known = known.filter(|known| name.len() <= 255 && known.len() <= 255);
    let likeness = known.map(|known| (strsim::jaro_winkler(name, known), known));
    let best = likeness.max_by(|a, b| a.0.total_cmp(&b.0));
    best.filter(|(likeness, _)| *likeness >= SIMILAR).map(|(_, known)| known)
}

fn found(node: &Node, expected: &str, kind: Kind) -> Fault {
    let found = match kind {
        Kind::Any => "a value",
        Kind::Condition => "a condition",
        Kind::Number => "a number",
        Kind::Text => "a text",
        Kind::Bytes => "bytes",
    };
    Fault::new(node.at, format!("expected {expected}, found {found}"))
}
