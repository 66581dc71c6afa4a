//! All stored tensors under their official names.

use std::{
    collections::{HashMap, HashSet, hash_map::Entry as Slot},
    sync::Arc,
};

use bytes::Bytes;
use cachalot_numerics::Dtype;
use safetensors::tensor::Dtype as StoredDtype;

use crate::{
    Error,
    config::limits,
    header::{self, Entry},
    index::{INDEX_FILE, Index, IndexFault},
    names::{self, Meaning},
    parallel,
    source::{MappedFile, Source, StoredFile},
};

/// One safetensors file.
#[derive(Debug)]
pub(crate) struct Shard {
    pub(crate) name: String,
    pub(crate) data: Bytes,
    /// The file that `data` maps; none for files in memory.
    pub(crate) file: Option<Arc<StoredFile>>,
}

/// Where a tensor lies.
#[derive(Clone, Debug)]
pub(crate) struct Placement {
    /// Position among the shards.
    pub(crate) shard: usize,
    pub(crate) dtype: StoredDtype,
    pub(crate) shape: Vec<usize>,
    /// First byte in the file.
    pub(crate) start: usize,
    /// Byte behind the last one.
    pub(crate) end: usize,
}

impl Placement {
    /// The element type, if this engine computes with it.
    pub(crate) fn dtype(&self) -> Option<Dtype> {
        Some(match self.dtype {
            StoredDtype::F32 => Dtype::F32,
            StoredDtype::BF16 => Dtype::Bf16,
            StoredDtype::F8_E4M3 => Dtype::F8E4m3,
            StoredDtype::F8_E8M0 => Dtype::F8E8m0,
            StoredDtype::I8 => Dtype::I8,
            StoredDtype::U8 => Dtype::U8,
            StoredDtype::I32 => Dtype::I32,
            StoredDtype::I64 => Dtype::I64,
            _ => return None,
        })
    }
}

/// Shards and the tensors in them.
#[derive(Debug)]
pub(crate) struct Catalogue {
    pub(crate) shards: Vec<Shard>,
    /// From official full name to place.
    pub(crate) tensors: HashMap<String, Placement>,
}

impl Catalogue {
    /// Maps the shards, reads their headers and agrees them with the index, if there is one.
    pub(crate) fn open(source: &Source, index: Option<&Index>) -> Result<Catalogue, Error> {
        let shards = open_shards(source, index)?;
        let listings = parallel::map(&shards, |shard| header::read(&shard.data));
        let mut headers = Vec::with_capacity(shards.len());
        for (shard, listing) in shards.iter().zip(listings) {
            headers.push(listing.map_err(|fault| Error::Header {
                file: source.display(&shard.name).display().to_string(),
                fault,
            })?);
        }
        if let Some(index) = index {
            compare(index, &shards, &headers).map_err(|fault| Error::Index {
                file: source.display(INDEX_FILE).display().to_string(),
                fault,
            })?;
        }
        let mut catalogue = Catalogue {
            shards,
            tensors: HashMap::with_capacity(headers.iter().map(Vec::len).sum()),
        };
        for (shard, entries) in headers.into_iter().enumerate() {
            for entry in entries {
                catalogue.add(shard, entry)?;
            }
        }
        catalogue.name_power_scales();
        Ok(catalogue)
    }

    pub(crate) fn data(&self, placement: &Placement) -> Bytes {
        self.shards[placement.shard].data.slice(placement.start..placement.end)
    }

    /// The same without counting a reference.
    pub(crate) fn bytes(&self, placement: &Placement) -> &[u8] {
        &self.shards[placement.shard].data[placement.start..placement.end]
    }

    fn add(&mut self, shard: usize, entry: Entry) -> Result<(), Error> {
        let whole = Placement {
            shard,
            dtype: entry.dtype,
            shape: entry.shape,
            start: entry.start,
            end: entry.end,
        };
        match names::meaning(&entry.name) {
            Meaning::Tensor(official) => {
                let official = official.into_owned();
                self.insert(official, whole, &entry.name)
            }
            Meaning::Stack { prefix, leaves } => {
                let Some(parts) = unstack(&whole, leaves.len()) else {
                    return self.insert(entry.name.clone(), whole, &entry.name);
                };
                for (position, part) in parts.enumerate() {
                    let (expert, leaf) = (position / leaves.len(), leaves[position % leaves.len()]);
                    self.insert(format!("{prefix}{expert}.{leaf}"), part, &entry.name)?;
                }
                Ok(())
            }
        }
    }

    /// Torch builds without the E8M0 type save such scales as bytes. The scales of integers are bytes indeed.
    fn name_power_scales(&mut self) {
        let is_of_integers = |scale: &str| {
            let matrix = scale.strip_suffix(".scale").unwrap_or(scale);
            let weight = self.tensors.get(&format!("{matrix}.weight"));
            weight.is_some_and(|weight| weight.dtype == StoredDtype::U8)
        };
        let is_byte_scale =
            |(name, tensor): &(&String, &Placement)| tensor.dtype == StoredDtype::U8 && name.ends_with(".scale");
        let byte_scales = self.tensors.iter().filter(is_byte_scale).map(|(name, _)| name);
        let named: Vec<String> = byte_scales.filter(|name| !is_of_integers(name)).cloned().collect();
        for name in named {
            if let Some(scale) = self.tensors.get_mut(&name) {
                scale.dtype = StoredDtype::F8_E8M0;
            }
        }
    }

    fn insert(&mut self, official: String, placement: Placement, stored: &str) -> Result<(), Error> {
        match self.tensors.entry(official) {
            Slot::Vacant(slot) => {
                slot.insert(placement);
                Ok(())
            }
            Slot::Occupied(slot) => {
                let file = |placement: &Placement| self.shards[placement.shard].name.clone();
                Err(Error::TensorTwice {
                    name: slot.key().clone(),
                    first: file(slot.get()),
                    second: format!("{stored} in {}", file(&placement)),
                })
            }
        }
    }
}

/// Cuts `[experts, rows, columns]` in one matrix for each expert and share of its rows.
fn unstack(whole: &Placement, shares: usize) -> Option<impl Iterator<Item = Placement>> {
    let &[experts, rows, columns] = whole.shape.as_slice() else {
        return None;
    };
    let byte_count = whole.end - whole.start;
    let count = experts.checked_mul(shares)?;
    if experts > limits::EXPERTS || !rows.is_multiple_of(shares) || !byte_count.is_multiple_of(count) {
        return None;
    }
    let part_byte_count = byte_count / count;
    let (shard, dtype, start) = (whole.shard, whole.dtype, whole.start);
    Some((0..count).map(move |position| Placement {
        shard,
        dtype,
        shape: vec![rows / shares, columns],
        start: start + position * part_byte_count,
        end: start + (position + 1) * part_byte_count,
    }))
}

/// Opens the shards that the index names, or the only one.
fn open_shards(source: &Source, index: Option<&Index>) -> Result<Vec<Shard>, Error> {
    let names = match index {
        Some(index) => index.shards.clone(),
        None => vec![single_shard(source)?],
    };
    let mut shards = Vec::with_capacity(names.len());
    let mut missing = Vec::new();
    for name in &names {
        match source.map(name)? {
            Some(MappedFile { data, file }) => shards.push(Shard {
                name: name.clone(),
                data,
                file,
            }),
            None => missing.push(name),
        }
    }
    match missing.first() {
        None => Ok(shards),
        Some(first) => Err(Error::Index {
            file: source.display(INDEX_FILE).display().to_string(),
            fault: IndexFault::ShardsMissing {
                first: (*first).clone(),
                count: missing.len(),
                total: names.len(),
            },
        }),
    }
}

/// The weights of a model that fits in one file.
const SINGLE_FILE: &str = "model.safetensors";

fn single_shard(source: &Source) -> Result<String, Error> {
    let mut names = source.shard_names()?;
    let missing = |name: &str, remedy| Error::FileMissing {
        name: name.into(),
        place: source.place(),
        remedy,
    };
    // What else lies beside the one file that the library would load (adapters, expected values) is not part of it.
    if names.iter().any(|name| name == SINGLE_FILE) {
        return Ok(SINGLE_FILE.to_owned());
    }
    match names.len() {
        0 => Err(missing(SINGLE_FILE, "download the weights into this folder")),
        1 => Ok(names.remove(0)),
        _ => Err(missing(
            INDEX_FILE,
            "it is needed where there are several .safetensors files, download it",
        )),
    }
}

/// The index must list the tensors of every shard, no fewer and no more.
fn compare(index: &Index, shards: &[Shard], headers: &[Vec<Entry>]) -> Result<(), IndexFault> {
    let mut stored = HashSet::with_capacity(index.shard_of.len());
    let mut unlisted = Vec::new();
    for (position, entries) in headers.iter().enumerate() {
        for entry in entries {
            stored.insert((entry.name.as_str(), position));
            if !index.shard_of.contains_key(&entry.name) {
                unlisted.push((&entry.name, position));
            }
        }
    }
    let listed = index.shard_of.iter();
    let absent = listed
        .filter(|(name, shard)| !stored.contains(&(name.as_str(), **shard)))
        .map(|(name, shard)| (name, *shard))
        .collect();
    if let Some((first, shard, count)) = first_and_count(absent) {
        return Err(IndexFault::NotInShard {
            first,
            shard: shards[shard].name.clone(),
            count,
        });
    }
    match first_and_count(unlisted) {
        None => Ok(()),
        Some((first, shard, count)) => Err(IndexFault::NotInIndex {
            first,
            shard: shards[shard].name.clone(),
            count,
        }),
    }
}

/// The first name in alphabetical order with its shard, and how many there are.
fn first_and_count(tensors: Vec<(&String, usize)>) -> Option<(String, usize, usize)> {
    let (first, shard) = tensors.iter().min()?;
    Some(((*first).clone(), *shard, tensors.len()))
}
