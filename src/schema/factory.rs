//! Descriptions of indexes as faiss's `index_factory` reads them: which are taken, and what they ask
//! for. faiss ends the process where some of its parts meet others (an exception inside of a parallel
//! loop), and takes as much memory as a number says: neither is left to a caller.

use std::sync::LazyLock;

use regex::{Captures, Regex};

use super::collection::shorten;
use super::index_kind::{LISTS_MAX, Recipe, TRAINING_ROWS_MIN};

/// Longest description in bytes, and its largest number other than of lists and bits.
const DESCRIPTION_BYTES_MAX: usize = 128;
const DESCRIPTION_NUMBER_MAX: u32 = 4_096;
/// Most links of a node and most codebooks.
const DESCRIPTION_LINKS_MAX: u32 = 256;
const DESCRIPTION_CODEBOOKS_MAX: u32 = 64;
/// Links of a node where a description names none.
const DEFAULT_LINKS: u64 = 32;
/// Most bytes of a table that an index is made with: a quantizer's centres, or a rotation.
const TABLE_BYTES_MAX: u64 = 256 << 20;
/// Bits of a product quantizer's code where a description names none, and most bits.
const DESCRIPTION_BITS: u32 = 8;
const DESCRIPTION_BITS_MAX: u32 = 12;

/// What is taken, in words.
const TAKEN: &str = "not one of those taken, which are [PCA..|OPQ..|ITQ..|RR..|Pad..|L2norm,] then Flat, \
    SQ.., PQ.., RQ.., LSQ.., PRQ.., PLSQ.., LSH.. or RaBitQ, or IVFn[_HNSWm], with Flat, SQ.., PQ.. or \
    RaBitQ, or HNSWm[,Flat|SQ..|PQ..], then [,RFlat|,Refine(Flat|SQ..|PQ..)]";

/// What faiss knows and is not taken, by the first letters of a part, and what does instead.
const INSTEAD: [(&str, &str); 7] = [
    ("IMI", "; a multi-index is not taken, IVFn and IVFn_HNSWm are"),
    ("NSG", "; graphs are HNSWm"),
    ("NNDescent", "; graphs are HNSWm"),
    ("IDMap", "; rows have their keys without it"),
    ("MinMax", "; ranges of each row are not taken, SQ8 is"),
    ("ZnLattice", "; lattices are not taken, PQ and RQ are"),
    ("RCQ", "; a residual coarse quantizer is not taken, IVFn is"),
];

/// What changes a row's dimensions, and the one code that rotates rows, with their numbers.
static TRANSFORM: LazyLock<Regex> = LazyLock::new(|| {
    let text = r"(PCA|OPQ|ITQ|RR|Pad|LSH)[WR]*(\d+)?(?:_(\d+))?";
    Regex::new(text).expect("it is a regular expression")
});

/// The expressions of what descriptions consist of: transforms, codes, lists or graphs with codes, and what
/// refines.
struct Parts {
    transform: &'static str,
    flat: String,
    lists: String,
    graph: String,
    stored: String,
    refine: String,
}

/// The descriptions that are taken: https://github.com/facebookresearch/faiss/wiki/The-index-factory
static GRAMMAR: LazyLock<Regex> = LazyLock::new(|| {
    let Parts { transform, flat, lists, graph, refine, .. } = Parts::new();
    let text = format!("^({transform},)*({flat}|{lists}|{graph}){refine}$");
    Regex::new(&text).expect("it is a regular expression")
});

/// One part of a description, between its commas.
static PART: LazyLock<Regex> = LazyLock::new(|| {
    let Parts { transform, flat, stored, .. } = Parts::new();
    let text = format!(
        r"^({transform}|{flat}|{LISTED}|IVF\d+(_HNSW\d*)?|HNSW\d*(_{stored})?|RFlat|Refine\({stored}\))$"
    );
    Regex::new(&text).expect("it is a regular expression")
});

/// Codes that lists alone have.
const LISTED: &str = r"PQ\d+x4fsr?(_\d+)?|PQ\d+\+\d+";

impl Parts {
    fn new() -> Parts {
        let transform = r"(PCAW?R?\d+|OPQ\d+(_\d+)?|ITQ\d*|RR\d*|Pad\d+|L2[nN]orm)";
        let scalar = "SQ(4|6|8|8_direct|8_direct_signed|fp16|bf16)";
        let product = r"PQ\d+(x\d+)?(np)?";
        let norm = "(_N(none|float|qint8|qint4))?";
        let scan_norm = "(_N(lsq2x4|rq2x4))?";
        let additive = format!(r"((RQ|LSQ)\d+x\d+|(PRQ|PLSQ)\d+x\d+x\d+){norm}");
        let scan = format!(r"(PQ\d+x4fs(_\d+)?|(RQ|LSQ|(PRQ|PLSQ)\d+x)\d+x4fs(_\d+)?{scan_norm})");
        let stored = format!("(Flat|{scalar}|{product})");
        let flat = format!(r"({stored}|{scan}|{additive}|LSH\d*r?t?|RaBitQ)");
        let lists = format!(r"IVF\d+(_HNSW\d*)?,({stored}|{LISTED}|RaBitQ)");
        let graph = format!(r"HNSW\d*([,_]{stored})?");
        let refine = format!(r"(,RFlat|,Refine\({stored}\))?");
        Parts { transform, flat, lists, graph, stored, refine }
    }
}

/// Bounds the numbers of a factory description, by which faiss takes memory, and finds those that say
/// how it is trained and searched. Whether faiss knows the description is seen when it is made.
pub(super) fn recipe(text: &str, dimension: u32) -> Result<Recipe, String> {
    let invalid = |detail: String| format!("index_factory {:?}: {detail}", shorten(text));
    if text.is_empty() || text.len() > DESCRIPTION_BYTES_MAX {
        let length = text.len();
        return Err(invalid(format!("{length} bytes; 1 to {DESCRIPTION_BYTES_MAX} are taken")));
    }
    if !GRAMMAR.is_match(text) {
        return Err(invalid(not_taken(text)));
    }
    let (mut nlist, mut bits, mut codebooks) = (0, 0, 1);
    for number in numbers(text) {
        let name = number.name();
        let is_codebooks = name.ends_with("RQ")
            || name.ends_with("LSQ")
            || name == "x" && number.after.starts_with('x');
        let limit = match name {
            "IVF" => LISTS_MAX,
            "HNSW" => DESCRIPTION_LINKS_MAX,
            _ if is_codebooks => DESCRIPTION_CODEBOOKS_MAX,
            "x" => DESCRIPTION_BITS_MAX,
            _ => DESCRIPTION_NUMBER_MAX,
        };
        // With one link, adding rows to a graph of faiss has no end; its tables of two dimensions want
        // four centres at a time.
        let least = if name == "HNSW" || (name == "x" && !is_codebooks) { 2 } else { 1 };
        let value = number.digits.parse::<u32>().ok();
        let value = value.filter(|value| (least..=limit).contains(value)).ok_or_else(|| {
            let Number { before, digits, .. } = number;
            invalid(format!("{digits} after {before:?}; {least} to {limit} are taken"))
        })?;
        match name {
            "IVF" => nlist = nlist.max(value),
            _ if is_codebooks => codebooks = codebooks.max(value),
            "x" => bits = bits.max(value),
            _ if name.ends_with("PQ") && !number.after.starts_with('x') => {
                bits = bits.max(DESCRIPTION_BITS);
            }
            _ => {}
        }
    }
    let floats = (u64::from(codebooks) * u64::from(dimension)) << bits;
    check_table("its codes", floats).map_err(invalid)?;
    check_transforms(text, dimension).map_err(invalid)?;
    let centres = u64::from(nlist).max(1 << bits);
    // Rotations that are trained want rows for their dimensions, one of them for codes of its own.
    let is_rotated = ["PCA", "OPQ", "ITQ"].iter().any(|name| text.contains(name));
    let rotation = if is_rotated { 2 * u64::from(dimension) } else { 2 };
    let own_codes = if text.contains("OPQ") { 1 << DESCRIPTION_BITS } else { 1 };
    let rows_min = centres.max(rotation).max(own_codes);
    let rows_wanted = (TRAINING_ROWS_MIN * centres).max(2 * u64::from(dimension)).max(rows_min);
    // The coarse quantizer of lists may be a graph too: lists are what a search chooses then.
    let is_graph = nlist == 0 && text.contains("HNSW");
    Ok(Recipe::Factory { description: text.into(), nlist, is_graph, rows_wanted, rows_min })
}

/// Names the first part of a description that is not taken, or says that the parts do not go together.
fn not_taken(text: &str) -> String {
    let Some(part) = text.split(',').find(|part| !PART.is_match(part)) else {
        return format!("taken apart it is, but together it is {TAKEN}");
    };
    let instead = INSTEAD.iter().find(|(name, _)| part.starts_with(name));
    format!("{part:?} is {TAKEN}{}", instead.map_or("", |(_, words)| words))
}

/// Links of a node in the widest graph of a description that is taken; 0 where it has none.
pub(super) fn links(description: &str) -> u64 {
    let widths = numbers(description).filter(|number| number.name() == "HNSW");
    let links = widths.filter_map(|width| width.digits.parse().ok()).max();
    links.unwrap_or(if description.contains("HNSW") { DEFAULT_LINKS } else { 0 })
}

/// Refuses rotations that do not fit the dimensions that they are given, or are too large.
fn check_transforms(text: &str, dimension: u32) -> Result<(), String> {
    let mut dimension = u64::from(dimension);
    let out_of = |at: usize, found: &Captures<'_>| {
        found.get(at).and_then(|digits| digits.as_str().parse::<u64>().ok())
    };
    for found in TRANSFORM.captures_iter(text) {
        let (name, first) = (&found[1], out_of(2, &found));
        let out = match name {
            "OPQ" => out_of(3, &found).unwrap_or(dimension),
            "Pad" => first.unwrap_or(0).max(dimension),
            "LSH" => first.unwrap_or(0),
            _ => first.unwrap_or(dimension),
        };
        if name != "Pad" {
            check_table("its rotation", dimension * dimension.max(out))?;
        }
        if matches!(name, "PCA" | "ITQ") && out > dimension {
            return Err(format!(
                "{name} makes {out} dimensions of {dimension}; it takes some away"
            ));
        }
        let parts = first.unwrap_or(1).max(1);
        if name == "OPQ" && out % parts != 0 {
            return Err(format!("OPQ has {parts} parts, which do not divide {out} dimensions"));
        }
        dimension = out;
    }
    Ok(())
}

/// Refuses a table of so many floats.
pub(super) fn check_table(what: &str, floats: u64) -> Result<(), String> {
    let bytes = 4 * floats;
    if bytes <= TABLE_BYTES_MAX {
        return Ok(());
    }
    Err(format!("{what} would take a table of {bytes} bytes; at most {TABLE_BYTES_MAX} are taken"))
}

/// A number in a description, with what is around it.
#[derive(Debug, Clone, Copy)]
struct Number<'a> {
    before: &'a str,
    digits: &'a str,
    after: &'a str,
}

impl<'a> Number<'a> {
    /// The letters right before it.
    fn name(&self) -> &'a str {
        self.before.rsplit(|c: char| !c.is_ascii_alphabetic()).next().unwrap_or_default()
    }
}

/// Each run of digits.
fn numbers(text: &str) -> impl Iterator<Item = Number<'_>> {
    let is_digit = |at: usize| text.as_bytes().get(at).is_some_and(u8::is_ascii_digit);
    let starts = (0..text.len()).filter(move |at| is_digit(*at) && (*at == 0 || !is_digit(at - 1)));
    starts.map(move |start| {
        let rest = &text[start..];
        let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        Number { before: &text[..start], digits: &rest[..end], after: &rest[end..] }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_that_a_description_asks_for_are_bounded() {
        for (text, dimension) in [
            ("HNSW257", 8),
            ("HNSW1", 8),
            ("PQ4x1np", 8),
            ("IVF10_HNSW1,Flat", 8),
            ("IVF10_HNSW4096,Flat", 8),
            ("RQ65x8", 8),
            ("PRQ2x65x8", 8),
            ("LSH64,RFlat", 10_000),
            ("LSQ9x12", 2_048),
            ("PQ8x12", 32_768),
            ("OPQ8,PQ8", 10_000),
            ("PCA64,SQ8", 10_000),
        ] {
            let words = recipe(text, dimension).expect_err(text);
            assert!(words.contains("are taken"), "{words}");
        }
        for (text, dimension) in [("OPQ4,SQ8", 7), ("RR6,OPQ4,SQ8", 8), ("OPQ4_6,SQ8", 8)] {
            let words = recipe(text, dimension).expect_err(text);
            assert!(words.contains("do not divide"), "{words}");
        }
        for (text, dimension) in [
            ("RQ8x8", 1_024),
            ("OPQ16_64,IVF9,PQ16x4fsr", 4_096),
            ("Pad8,OPQ4,SQ8", 7),
            ("PCA100,PRQ2x16x8", 128),
        ] {
            recipe(text, dimension).expect(text);
        }
    }

    #[test]
    fn what_faiss_cannot_be_trusted_with_is_not_taken() {
        for text in [
            "IMI2x8,Flat",
            "IDMap,Flat",
            "Flat,IDMap2",
            "NSG16",
            "IVF10_NSG8,Flat",
            "IVF10,RQ2x4",
            "PRQ2x2x4_Ncqint8",
            "IVF10(PQ2x4),Flat",
            "IVF10,FlatDedup",
            "IVF4k,Flat",
            "Flat,Refine(IVF4,Flat)",
            "ZnLattice2x4_4",
            "RCQ2x4",
            "MinMax,SQ8",
            "SQ8;rm",
            "SQ8\n",
            "PCA4",
            ",",
            "(",
        ] {
            let words = recipe(text, 16).expect_err(text);
            assert!(words.contains("not one of those taken"), "{words}");
        }
    }

    #[test]
    fn the_part_that_is_not_taken_is_named() {
        for (text, part) in [
            ("IMI2x8,Flat", "\"IMI2x8\" is not"),
            ("IMI2x8,Flat", "IVFn_HNSWm are"),
            ("PCA8,NSG32,Flat", "\"NSG32\" is not"),
            ("PCA8,NSG32,Flat", "graphs are HNSWm"),
            ("IVF16,Flat,IDMap", "rows have their keys"),
            ("IVF4k,Flat", "\"IVF4k\""),
            ("IVF16,RQ8x8", "together"),
            ("Flat,PCA8", "together"),
            ("", "0 bytes"),
        ] {
            let words = recipe(text, 16).expect_err(text);
            assert!(words.contains(part), "{words}");
        }
    }
}
