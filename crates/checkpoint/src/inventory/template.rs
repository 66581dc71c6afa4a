//! The tensors of one place, with routed experts written once and repeated.

use cachalot_numerics::Dtype;

use super::{MatrixClass, Part, SlotKind};

/// A tensor of a place, or one of each routed expert.
#[derive(Clone, Debug)]
pub struct Template {
    /// Name inside the place; `*` stands for the expert's index.
    suffix: String,
    /// 1, or the number of routed experts.
    pub(crate) repeats: usize,
    pub(crate) part: Part,
    pub(crate) kind: SlotKind,
}

impl Template {
    pub(crate) fn suffix_of(&self, repeat: usize) -> String {
        match self.suffix.split_once('*') {
            Some((before, after)) => format!("{before}{repeat}{after}"),
            None => self.suffix.clone(),
        }
    }
}

/// Templates that are being listed.
pub(crate) struct List {
    pub(crate) templates: Vec<Template>,
}

impl List {
    pub(crate) fn new() -> List {
        List {
            templates: Vec::with_capacity(48),
        }
    }

    pub(crate) fn push(&mut self, part: Part, suffix: &str, repeats: usize, kind: SlotKind) {
        self.templates.push(Template {
            suffix: suffix.to_owned(),
            repeats,
            part,
            kind,
        });
    }

    pub(crate) fn matrix(&mut self, part: Part, suffix: &str, rows: usize, columns: usize, class: MatrixClass) {
        let kind = SlotKind::Matrix { rows, columns, class };
        self.push(part, suffix, 1, kind);
    }

    pub(crate) fn plain(&mut self, part: Part, suffix: &str, dtype: Dtype, shape: &[usize]) {
        let shape = shape.to_vec();
        self.push(part, suffix, 1, SlotKind::Plain { shape, dtype });
    }

    /// The three matrices of each routed expert.
    pub(crate) fn routed_experts(&mut self, count: usize, width: usize, inner: usize) {
        for (name, rows, columns) in [("w1", inner, width), ("w2", width, inner), ("w3", inner, width)] {
            let kind = SlotKind::Matrix {
                rows,
                columns,
                class: MatrixClass::Expert,
            };
            self.push(Part::RoutedExperts, &format!("ffn.experts.*.{name}"), count, kind);
        }
    }
}
