//! From the words of a filter to its tree: a recursive descent, one function for each level of
//! precedence. It reads every word once, and how deep it goes is bounded.

use super::fault::Fault;
use super::syntax::{Arithmetic, Comparison, Node, Syntax};
use super::token::{Token, tokens};

/// How deep parts of a filter may lie in each other, and parentheses too. Each step of a chain of
/// arithmetic lies in the next. Whoever goes through the tree of a filter goes no deeper than this.
pub(super) const DEPTH_MAX: usize = 64;

/// What stands where a value is expected.
const VALUE: &str = "a column, a number, a text in quotes, a {parameter} or \"(\"";

/// The tree of a filter.
pub(super) fn parse(text: &str) -> Result<Node, Fault> {
    let mut parser = Parser { text, tokens: tokens(text)?, next: 0, depth: 0 };
    let filter = parser.or()?;
    match parser.peek() {
        Token::End => Ok(filter),
        Token::Sign("=") => Err(parser.expected("\"==\"")),
        Token::Sign("(") if matches!(filter.syntax, Syntax::Name(_)) => {
            Err(parser.fault("there are no functions in filters"))
        }
        _ => Err(parser.expected("an operator or the end")),
    }
}

fn too_deep(at: usize) -> Fault {
    Fault::new(at, format!("nested deeper than {DEPTH_MAX} levels"))
}

/// A part of a filter, unless it is too deep.
fn node(at: usize, syntax: Syntax) -> Result<Node, Fault> {
    let node = Node::new(at, syntax);
    if node.height > DEPTH_MAX { Err(too_deep(at)) } else { Ok(node) }
}

struct Parser<'a> {
    text: &'a str,
    tokens: Vec<(usize, Token)>,
    next: usize,
    depth: usize,
}

impl Parser<'_> {
    fn peek(&self) -> &Token {
        self.tokens.get(self.next).map_or(&Token::End, |(_, token)| token)
    }

    /// Where the next word begins.
    fn at(&self) -> usize {
        self.tokens.get(self.next).map_or(self.text.len(), |(at, _)| *at)
    }

    fn take(&mut self) -> Token {
        let token = self.peek().clone();
        self.next += 1;
        token
    }

    /// Takes a word of the language or a sign if it comes next.
    fn skip(&mut self, wanted: &str) -> bool {
        let is_next =
            matches!(self.peek(), Token::Word(found) | Token::Sign(found) if *found == wanted);
        self.next += usize::from(is_next);
        is_next
    }

    fn fault(&self, detail: impl Into<String>) -> Fault {
        Fault::new(self.at(), detail)
    }

    /// The fault that something else comes next than what was expected.
    fn expected(&self, what: &str) -> Fault {
        let end = self.tokens.get(self.next + 1).map_or(self.text.len(), |(at, _)| *at);
        let found = match self.peek() {
            Token::End => "the end".to_owned(),
            _ => {
                let word = self.text.get(self.at()..end).unwrap_or_default().trim_end();
                format!("{:?}", word.chars().take(32).collect::<String>())
            }
        };
        self.fault(format!("expected {what}, found {found}"))
    }

    /// Runs `inner` one level deeper.
    fn deeper<T>(&mut self, inner: impl FnOnce(&mut Self) -> Result<T, Fault>) -> Result<T, Fault> {
        if self.depth == DEPTH_MAX {
            return Err(too_deep(self.at()));
        }
        self.depth += 1;
        let result = inner(self);
        self.depth -= 1;
        result
    }

    fn or(&mut self) -> Result<Node, Fault> {
        self.chain("or", Parser::and, Syntax::Or)
    }

    fn and(&mut self) -> Result<Node, Fault> {
        self.chain("and", Parser::not, Syntax::And)
    }

    /// Terms with a word between them, however many: they lie beside each other.
    fn chain(
        &mut self,
        word: &str,
        term: impl Fn(&mut Self) -> Result<Node, Fault>,
        build: impl Fn(Vec<Node>) -> Syntax,
    ) -> Result<Node, Fault> {
        let first = term(self)?;
        if !matches!(self.peek(), Token::Word(found) if *found == word) {
            return Ok(first);
        }
        let at = first.at;
        let mut terms = vec![first];
        while self.skip(word) {
            terms.push(term(self)?);
        }
        node(at, build(terms))
    }

    fn not(&mut self) -> Result<Node, Fault> {
        let at = self.at();
        if !self.skip("not") {
            return self.condition();
        }
        let inner = self.deeper(Parser::not)?;
        node(at, Syntax::Not(Box::new(inner)))
    }

    /// A comparison, `in`, `like`, `is null`, or a value alone.
    fn condition(&mut self) -> Result<Node, Fault> {
        let left = self.sum()?;
        let at = left.at;
        let syntax = match self.peek() {
            Token::Sign(_) => match self.comparison() {
                Some(first) => self.compare(left, first)?,
                None => return Ok(left),
            },
            Token::Word("in" | "like" | "is") => self.predicate(left)?,
            Token::Word("not") => {
                self.next += 1;
                if !matches!(self.peek(), Token::Word("in" | "like")) {
                    return Err(self.expected("\"in\" or \"like\" after \"not\""));
                }
                let syntax = self.predicate(left)?;
                Syntax::Not(Box::new(node(at, syntax)?))
            }
            _ => return Ok(left),
        };
        if self.comparison().is_some() || matches!(self.peek(), Token::Word("in" | "like" | "is")) {
            let detail = "conditions do not follow each other; write \"and\" between them, or parentheses around the first";
            return Err(self.fault(detail));
        }
        node(at, syntax)
    }

    /// The comparison that comes next, if one does.
    fn comparison(&self) -> Option<Comparison> {
        let Token::Sign(sign) = self.peek() else { return None };
        Comparison::ALL.iter().find(|(known, _)| known == sign).map(|(_, comparison)| *comparison)
    }

    fn compare(&mut self, left: Node, first: Comparison) -> Result<Syntax, Fault> {
        self.next += 1;
        let mut rest = vec![(first, self.sum()?)];
        while let Some(next) = self.comparison() {
            if !rest.last().is_some_and(|(last, _)| last.chains_with(next)) {
                let detail = "this comparison does not continue the one before it; ranges go one way, as in 1 < a <= 5";
                return Err(self.fault(detail));
            }
            self.next += 1;
            rest.push((next, self.sum()?));
        }
        Ok(Syntax::Compare(Box::new(left), rest))
    }

    /// What follows at `in`, `like` or `is`.
    fn predicate(&mut self, left: Node) -> Result<Syntax, Fault> {
        let left = Box::new(left);
        match self.take() {
            Token::Word("in") => Ok(Syntax::In(left, Box::new(self.list()?))),
            Token::Word("like") => {
                let at = self.at();
                let syntax = match self.peek() {
                    Token::Text(text) => Syntax::Text(text.clone()),
                    Token::Parameter(name) => Syntax::Parameter(name.clone()),
                    _ => return Err(self.expected("a pattern: a text in quotes or a {parameter}")),
                };
                self.next += 1;
                Ok(Syntax::Like(left, Box::new(node(at, syntax)?)))
            }
            _ => {
                let is_not = self.skip("not");
                if !self.skip("null") {
                    return Err(self.expected("\"null\" or \"not null\""));
                }
                let at = left.at;
                let is_null = Syntax::IsNull(left);
                Ok(match is_not {
                    true => Syntax::Not(Box::new(node(at, is_null)?)),
                    false => is_null,
                })
            }
        }
    }

    /// What is on the right side of `in`.
    fn list(&mut self) -> Result<Node, Fault> {
        let at = self.at();
        if let Token::Parameter(name) = self.peek() {
            let syntax = Syntax::Parameter(name.clone());
            self.next += 1;
            return node(at, syntax);
        }
        if !self.skip("[") {
            return Err(self.expected("a list in brackets or a {parameter}"));
        }
        let mut items = Vec::new();
        while !self.skip("]") {
            items.push(self.item()?);
            if !self.skip(",") && !matches!(self.peek(), Token::Sign("]")) {
                return Err(self.expected("\",\" or \"]\""));
            }
        }
        node(at, Syntax::List(items))
    }

    /// A value of a list: constant, with a sign at most.
    fn item(&mut self) -> Result<Node, Fault> {
        let at = self.at();
        if self.skip("-") {
            if !matches!(self.peek(), Token::Integer(_) | Token::Real(_)) {
                return Err(self.expected("a number after \"-\""));
            }
            let inner = Box::new(self.item()?);
            return node(at, Syntax::Negative(inner));
        }
        let syntax = match self.peek() {
            Token::Integer(number) => Syntax::Integer(*number),
            Token::Real(number) => Syntax::Real(*number),
            Token::Text(text) => Syntax::Text(text.clone()),
            Token::Parameter(name) => Syntax::Parameter(name.clone()),
            Token::Word(word @ ("true" | "false")) => Syntax::Truth(*word == "true"),
            _ => return Err(self.expected("a number, a text in quotes, true, false or \"]\"")),
        };
        self.next += 1;
        node(at, syntax)
    }

    fn sum(&mut self) -> Result<Node, Fault> {
        let operators = [Arithmetic::Add, Arithmetic::Subtract];
        self.arithmetic(&operators, Parser::product)
    }

    fn product(&mut self) -> Result<Node, Fault> {
        let operators = [Arithmetic::Multiply, Arithmetic::Divide, Arithmetic::Remainder];
        self.arithmetic(&operators, Parser::signed)
    }

    /// Operands with operators of one precedence between them, the first two taken first.
    fn arithmetic(
        &mut self,
        operators: &[Arithmetic],
        operand: impl Fn(&mut Self) -> Result<Node, Fault>,
    ) -> Result<Node, Fault> {
        let mut left = operand(self)?;
        while let Some(operator) = self.operator(operators) {
            self.next += 1;
            let (at, right) = (left.at, operand(self)?);
            left = node(at, Syntax::Arithmetic(operator, Box::new(left), Box::new(right)))?;
        }
        Ok(left)
    }

    fn operator(&self, operators: &[Arithmetic]) -> Option<Arithmetic> {
        let Token::Sign(sign) = self.peek() else { return None };
        let found = Arithmetic::ALL.iter().find(|(known, _)| known == sign);
        found.map(|(_, operator)| *operator).filter(|operator| operators.contains(operator))
    }

    fn signed(&mut self) -> Result<Node, Fault> {
        let at = self.at();
        if self.skip("+") {
            return self.deeper(Parser::signed);
        }
        if !self.skip("-") {
            return self.power();
        }
        let inner = self.deeper(Parser::signed)?;
        node(at, Syntax::Negative(Box::new(inner)))
    }

    /// `**` is stronger than a sign before it, and the last two are taken first.
    fn power(&mut self) -> Result<Node, Fault> {
        let left = self.value()?;
        if !self.skip("**") {
            return Ok(left);
        }
        let (at, right) = (left.at, self.deeper(Parser::signed)?);
        let syntax = Syntax::Arithmetic(Arithmetic::Power, Box::new(left), Box::new(right));
        node(at, syntax)
    }

    fn value(&mut self) -> Result<Node, Fault> {
        let at = self.at();
        if self.skip("(") {
            let inner = self.deeper(Parser::or)?;
            if self.skip(")") {
                return Ok(inner);
            }
            return Err(match self.peek() {
                Token::Sign("=") => self.expected("\"==\""),
                _ => self.expected("an operator or \")\""),
            });
        }
        let syntax = match self.peek() {
            Token::Name(name) => Syntax::Name(name.clone()),
            Token::Integer(number) => Syntax::Integer(*number),
            Token::Real(number) => Syntax::Real(*number),
            Token::Text(text) => Syntax::Text(text.clone()),
            Token::Parameter(name) => Syntax::Parameter(name.clone()),
            Token::Word(word @ ("true" | "false")) => Syntax::Truth(*word == "true"),
            Token::Word("null") => {
                return Err(
                    self.fault("nothing is equal to null; write \"is null\" or \"is not null\"")
                );
            }
            Token::Word(word) => {
                let detail = format!("a column of the name {word} is written in backticks");
                let Fault { at, detail: expected } = self.expected(VALUE);
                return Err(Fault::new(at, format!("{expected}; {detail}")));
            }
            _ => return Err(self.expected(VALUE)),
        };
        self.next += 1;
        node(at, syntax)
    }
}
