//! What a pickle can hold: a closed set of plain values. Names of classes and functions stay names; the few that
//! PyTorch builds a state dict with are known, and a call of any other becomes a value that nobody looks into.

use super::error::TorchFileFault;

/// The module and name of a class or a function.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct GlobalName<'a> {
    pub(super) module: &'a str,
    pub(super) name: &'a str,
}

/// Place of a sequence or a dict in the [`Heap`].
pub(super) type Id = usize;

/// A value of a pickle, its text borrowed from the file.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum PickleValue<'a> {
    None,
    Bool(bool),
    Int(i64),
    /// An integer of more than 64 bits, as its little-endian bytes.
    Long(&'a [u8]),
    Text(&'a str),
    /// A float, bytes or a set: nothing that weights are made of.
    Plain,
    Global(GlobalName<'a>),
    Tuple(Id),
    List(Id),
    Dict(Id),
    /// A storage by the tuple that describes it.
    Storage(Id),
    /// A tensor by the arguments of its `_rebuild_tensor_v2`.
    Tensor(Id),
    /// An object of any other class, or what any other function would have made.
    Object(GlobalName<'a>),
}

/// The sequences and dicts that values refer to. Values hold only places, so that cycles and depth do no harm.
#[derive(Debug, Default)]
pub(super) struct Heap<'a> {
    sequences: Vec<Vec<PickleValue<'a>>>,
    dicts: Vec<Vec<(PickleValue<'a>, PickleValue<'a>)>>,
    /// The tuples that describe storages, in the order of the file.
    pub(super) storages: Vec<Id>,
    /// Pairs copied so far by [`Heap::call`].
    copied: usize,
}

impl<'a> Heap<'a> {
    /// The items of a tuple or a list.
    pub(super) fn items(&self, id: Id) -> &[PickleValue<'a>] {
        self.sequences.get(id).map_or(&[], Vec::as_slice)
    }

    /// The pairs of a dict, in the order they were set.
    pub(super) fn pairs(&self, id: Id) -> &[(PickleValue<'a>, PickleValue<'a>)] {
        self.dicts.get(id).map_or(&[], Vec::as_slice)
    }

    pub(super) fn sequence(&mut self, items: Vec<PickleValue<'a>>) -> Id {
        self.sequences.push(items);
        self.sequences.len() - 1
    }

    pub(super) fn dict(&mut self) -> Id {
        self.dicts.push(Vec::new());
        self.dicts.len() - 1
    }

    /// Appends to a list; what is appended to an object is dropped. False if the target takes none.
    pub(super) fn append(&mut self, target: PickleValue<'a>, items: &[PickleValue<'a>]) -> bool {
        if let PickleValue::List(id) = target
            && let Some(list) = self.sequences.get_mut(id)
        {
            list.extend_from_slice(items);
        }
        matches!(target, PickleValue::List(_) | PickleValue::Object(_) | PickleValue::Plain)
    }

    /// Sets alternating keys and values in a dict; what is set in an object is dropped. False if the target takes none.
    pub(super) fn set(&mut self, target: PickleValue<'a>, items: &[PickleValue<'a>]) -> bool {
        let (pairs, rest) = items.as_chunks::<2>();
        if let PickleValue::Dict(id) = target
            && let Some(dict) = self.dicts.get_mut(id)
        {
            dict.extend(pairs.iter().map(|&[key, value]| (key, value)));
        }
        rest.is_empty()
            && matches!(target, PickleValue::Dict(_) | PickleValue::Object(_) | PickleValue::Plain)
    }

    /// What a persistent id stands for.
    pub(super) fn persistent(&mut self, id: PickleValue<'a>) -> PickleValue<'a> {
        match id {
            PickleValue::Tuple(id)
                if self.items(id).first() == Some(&PickleValue::Text("storage")) =>
            {
                self.storages.push(id);
                PickleValue::Storage(id)
            }
            // The legacy format writes the class of a pickled module with its source.
            PickleValue::Tuple(id)
                if self.items(id).first() == Some(&PickleValue::Text("module")) =>
            {
                self.items(id).get(1).copied().unwrap_or(PickleValue::Plain)
            }
            _ => PickleValue::Plain,
        }
    }

    /// What a call stands for. Nothing is called: of the names known here the result is clear from the arguments.
    pub(super) fn call(
        &mut self,
        callable: PickleValue<'a>,
        arguments: Id,
    ) -> Result<PickleValue<'a>, TorchFileFault> {
        let PickleValue::Global(name) = callable else { return Ok(PickleValue::Plain) };
        let known = match (name.module, name.name, self.items(arguments)) {
            ("collections", "OrderedDict" | "defaultdict", &[PickleValue::List(pairs)]) => {
                PickleValue::Dict(self.dict_of(pairs)?)
            }
            ("collections", "OrderedDict" | "defaultdict", _) => PickleValue::Dict(self.dict()),
            ("torch", "Size", &[size @ (PickleValue::Tuple(_) | PickleValue::List(_))]) => size,
            ("torch._utils", "_rebuild_tensor" | "_rebuild_tensor_v2", _) => {
                PickleValue::Tensor(arguments)
            }
            (
                "torch._utils",
                "_rebuild_parameter" | "_rebuild_parameter_with_state",
                &[tensor @ PickleValue::Tensor(_), ..],
            ) => tensor,
            // A tensor with attributes: the function and the arguments that make the tensor, and the attributes.
            (
                "torch._tensor",
                "_rebuild_from_type_v2",
                &[
                    PickleValue::Global(GlobalName {
                        module: "torch._utils",
                        name: "_rebuild_tensor_v2",
                    }),
                    _,
                    PickleValue::Tuple(inner),
                    ..,
                ],
            ) => PickleValue::Tensor(inner),
            _ => PickleValue::Object(name),
        };
        Ok(known)
    }

    /// A dict of a list of pairs. All such lists together are bounded, as one list may be used many times over.
    fn dict_of(&mut self, list: Id) -> Result<Id, TorchFileFault> {
        const MOST: usize = 1 << 20;
        self.copied = self.copied.saturating_add(self.items(list).len());
        if self.copied > MOST {
            return Err(TorchFileFault::TooLarge);
        }
        let mut pairs = Vec::new();
        for item in self.items(list) {
            if let &(PickleValue::Tuple(pair) | PickleValue::List(pair)) = item
                && let &[key, value] = self.items(pair)
            {
                pairs.push((key, value));
            }
        }
        let id = self.dict();
        self.dicts[id] = pairs;
        Ok(id)
    }
}
