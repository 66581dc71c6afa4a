//! Engram: tables of word groups, and the numbers by which a group finds its rows.

use crate::{
    Error,
    config::fields::{DOWNLOAD_AGAIN, Fields},
    config::limits,
};

/// Settings of Engram.
#[derive(Clone, Debug, PartialEq)]
pub struct EngramConfig {
    /// Layers before which rows are added, ascending.
    pub layer_ids: Vec<usize>,
    /// Rows of each layer's table.
    pub num_embeddings: Vec<usize>,
    /// Tokens of the longest group; groups have 2 to this many.
    pub max_ngram_size: usize,
    /// Number from which on the primes are taken that rows are counted by.
    pub vocab_size: usize,
    /// Rows that a group of each length finds.
    pub n_heads: usize,
    /// Channels of a row.
    pub head_dim: usize,
    /// Token that stands before the beginning of a text.
    pub pad_token_id: u32,
    /// Different tokens that remain when spelling variants count as one.
    pub compressed_vocab_size: usize,
}

/// Groups of tokens are at most this long.
const NGRAM_MOST: usize = 16;
/// Primes of all layers together.
const PRIMES_MOST: usize = 4096;
/// Largest number at which primes begin; row numbers are stored in 32 bits.
const START_MOST: usize = 1 << 26;

impl EngramConfig {
    /// The keys `engram_*`, if the model has such layers.
    pub(super) fn read(fields: &Fields<'_>, layer_count: usize, vocabulary: usize) -> Result<Option<Self>, Error> {
        let key = "engram_layer_ids";
        if fields.get(key).is_none() {
            return Ok(None);
        }
        let expected = format!("layers below {layer_count} (num_hidden_layers), ascending");
        let layer_ids = fields.integers(key, limits::LAYERS, &expected, |layer| layer < layer_count)?;
        if !layer_ids.is_sorted_by(|left, right| left < right) {
            return Err(fields.wrong(key, fields.require(key)?, expected));
        }
        if layer_ids.is_empty() {
            return Ok(None);
        }
        let rows_key = "engram_num_embeddings";
        let expected = format!(
            "the rows of {} tables ({key}), each from 1 to {}",
            layer_ids.len(),
            i32::MAX
        );
        let num_embeddings = fields.integers(rows_key, layer_ids.len(), &expected, |rows| {
            (1..=i32::MAX as usize).contains(&rows)
        })?;
        if num_embeddings.len() != layer_ids.len() {
            return Err(fields.wrong(rows_key, fields.require(rows_key)?, expected));
        }
        let config = EngramConfig {
            num_embeddings,
            max_ngram_size: fields.integer("engram_max_ngram_size", 2, NGRAM_MOST)?,
            vocab_size: fields.integer("engram_vocab_size", 2, START_MOST)?,
            n_heads: fields.count("engram_n_heads", limits::STAGES)?,
            head_dim: fields.count("engram_head_dim", limits::HEAD_DIM)?,
            // The vocabulary's limit is far below 2^32.
            pad_token_id: fields.integer("engram_pad_token_id", 0, vocabulary - 1)? as u32,
            compressed_vocab_size: fields.count("engram_compressed_vocab_size", vocabulary)?,
            layer_ids,
        };
        config.check(fields)?;
        Ok(Some(config))
    }

    fn check(&self, fields: &Fields<'_>) -> Result<(), Error> {
        let refuse = |key: &str, value: usize, expected: String| {
            Err(fields.refuse(key, value.to_string(), expected, DOWNLOAD_AGAIN))
        };
        let prime_count = self.layer_ids.len() * self.row_count_per_token();
        if prime_count > PRIMES_MOST {
            let expected = format!("heads and groups that need at most {PRIMES_MOST} primes, not {prime_count}");
            return refuse("engram_n_heads", self.n_heads, expected);
        }
        for (primes, rows) in self.primes().iter().zip(&self.num_embeddings) {
            let needed: usize = primes.iter().sum();
            if *rows < needed {
                let expected = format!("at least {needed}, the sum of the primes from engram_vocab_size on");
                return refuse("engram_num_embeddings", *rows, expected);
            }
        }
        Ok(())
    }

    /// Rows that a token reads of a layer's table.
    pub fn row_count_per_token(&self) -> usize {
        (self.max_ngram_size - 1) * self.n_heads
    }

    /// Channels of all rows of a token together.
    pub fn width(&self) -> usize {
        self.row_count_per_token() * self.head_dim
    }

    /// Position of a layer among those with a table.
    pub fn index_of(&self, layer: usize) -> Option<usize> {
        self.layer_ids.binary_search(&layer).ok()
    }

    /// For each layer with a table one prime for each group length and head: primes ascend from `vocab_size` and none is
    /// used twice. A group's number, divided by its prime, leaves its row.
    pub fn primes(&self) -> Vec<Vec<usize>> {
        let mut primes = (self.vocab_size..).filter(|number| is_prime(*number));
        let count = self.row_count_per_token();
        let layers = self.layer_ids.iter();
        layers.map(|_| primes.by_ref().take(count).collect()).collect()
    }
}

fn is_prime(number: usize) -> bool {
    if number < 4 {
        return number >= 2;
    }
    let mut divisors = (2..).take_while(|divisor| divisor * divisor <= number);
    divisors.all(|divisor| !number.is_multiple_of(divisor))
}
