//! One query vector of several examples.

use bytes::Bytes;
use half::f16;

use super::decode_floats;
use super::types::ElementType;

/// Rows that stand for what is looked for, and for what is not.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Examples {
    /// Keys of rows like those that are looked for.
    pub positives: Vec<u64>,
    /// Keys of rows unlike them.
    pub negatives: Vec<u64>,
}

impl Examples {
    /// True without any.
    pub fn is_empty(&self) -> bool {
        self.positives.is_empty() && self.negatives.is_empty()
    }

    /// All keys, those of what is looked for first.
    pub fn keys(&self) -> impl Iterator<Item = u64> {
        self.positives.iter().chain(&self.negatives).copied()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.positives.len() + self.negatives.len()
    }
}

/// The sums of stored vectors that are examples.
#[derive(Debug, Clone)]
pub struct ExampleSums {
    element: ElementType,
    positives: Sum,
    negatives: Sum,
}

#[derive(Debug, Clone)]
struct Sum {
    numbers: Vec<f64>,
    count: u32,
}

impl Sum {
    fn add(&mut self, floats: &[f32]) {
        self.count += 1;
        self.numbers.iter_mut().zip(floats).for_each(|(sum, x)| *sum += f64::from(*x));
    }
}

impl ExampleSums {
    /// No examples yet, for vectors of `dimension` elements that are not bits.
    pub fn new(element: ElementType, dimension: u32) -> Self {
        let none = Sum { numbers: vec![0.0; dimension as usize], count: 0 };
        ExampleSums { element, positives: none.clone(), negatives: none }
    }

    /// Adds a vector like those that are looked for.
    pub fn add_positive(&mut self, vector: &[u8]) {
        self.positives.add(&floats(self.element, vector));
    }

    /// Adds a vector unlike them.
    pub fn add_negative(&mut self, vector: &[u8]) {
        self.negatives.add(&floats(self.element, vector));
    }

    /// The average of the positives, moved away from the average of the negatives by as far as that is
    /// from it: avg(positives) + (avg(positives) - avg(negatives)). There must be a positive.
    ///
    /// Numbers are rounded to the nearest that the element type has, halves away from zero for whole
    /// numbers, and cut to its range.
    pub fn vector(&self) -> Bytes {
        let positives = f64::from(self.positives.count.max(1));
        let negatives = f64::from(self.negatives.count);
        let numbers = self.positives.numbers.iter().zip(&self.negatives.numbers);
        let numbers = numbers.map(|(positive, negative)| {
            let average = positive / positives;
            if negatives == 0.0 { average } else { average + (average - negative / negatives) }
        });
        encode_numbers(self.element, numbers)
    }
}

fn floats(element: ElementType, vector: &[u8]) -> Vec<f32> {
    let mut floats = Vec::new();
    decode_floats(vector, element, vector.len(), false, &mut floats);
    floats
}

/// A vector as it is stored, of its numbers: rounded to the nearest that the element type has, halves away
/// from zero for whole numbers, and cut to its range. Empty for bits.
pub fn encode_numbers(element: ElementType, numbers: impl Iterator<Item = f64>) -> Bytes {
    let whole = |number: f64, most: f64| number.round().clamp(-most - 1.0, most);
    match element {
        ElementType::Fp32 => {
            let most = f64::from(f32::MAX);
            numbers.flat_map(|x| (x.clamp(-most, most) as f32).to_le_bytes()).collect()
        }
        ElementType::Fp16 => {
            let most = f16::MAX.to_f64();
            numbers.flat_map(|x| f16::from_f64(x.clamp(-most, most)).to_le_bytes()).collect()
        }
        ElementType::Int16 => {
            numbers.flat_map(|x| (whole(x, f64::from(i16::MAX)) as i16).to_le_bytes()).collect()
        }
        ElementType::Int8 => numbers.map(|x| whole(x, f64::from(i8::MAX)) as i8 as u8).collect(),
        ElementType::Int4 => {
            let halves: Vec<u8> = numbers.map(|x| whole(x, 7.0) as i8 as u8 & 0x0f).collect();
            halves.chunks(2).map(|pair| pair[0] | pair.get(1).copied().unwrap_or(0) << 4).collect()
        }
        // Bits have no average: whoever asks for one is refused before.
        ElementType::Binary32 | ElementType::Binary64 => Bytes::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(element: ElementType, positives: &[&[f64]], negatives: &[&[f64]], expected: &[f32]) {
        let mut sums = ExampleSums::new(element, expected.len() as u32);
        let encoded = |numbers: &[f64]| encode_numbers(element, numbers.iter().copied());
        positives.iter().for_each(|numbers| sums.add_positive(&encoded(numbers)));
        negatives.iter().for_each(|numbers| sums.add_negative(&encoded(numbers)));
        assert_eq!(floats(element, &sums.vector()), expected, "{element:?}");
    }

    #[test]
    fn examples_are_averaged_and_negatives_push_away() {
        use ElementType::*;
        for element in [Fp32, Fp16, Int16, Int8, Int4] {
            check(element, &[&[3.0, -2.0], &[5.0, -4.0]], &[], &[4.0, -3.0]);
            check(element, &[&[3.0, -2.0]], &[&[1.0, -1.0], &[3.0, 1.0]], &[4.0, -4.0]);
        }
        check(Fp32, &[&[1.0], &[2.0]], &[], &[1.5]);
        check(Fp16, &[&[1.0], &[2.0]], &[], &[1.5]);
    }

    #[test]
    fn whole_numbers_are_rounded_and_everything_is_cut_to_its_range() {
        use ElementType::*;
        for (element, most) in [(Int16, 32_767.0), (Int8, 127.0), (Int4, 7.0)] {
            check(element, &[&[1.0, -1.0], &[2.0, -2.0]], &[], &[2.0, -2.0]);
            let least = -most - 1.0;
            check(element, &[&[most, least]], &[&[0.0, 0.0]], &[most as f32, least as f32]);
        }
        let most = f64::from(f32::MAX);
        check(Fp32, &[&[most, -most]], &[&[-most, most]], &[f32::MAX, f32::MIN]);
        check(Fp16, &[&[65_504.0, -65_504.0]], &[&[-1.0, 1.0]], &[65_504.0, -65_504.0]);
    }
}
