//! What a pickle can hold: a closed set of plain values. Names of classes and functions stay names; the few that
//! PyTorch builds a state dict with are known, and a call of any other becomes a value that nobody looks into.

use super::error::Fault;

/// The module and name of a class or a function.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Name<'a> {
    pub(super) module: &'a str,
    pub(super) name: &'a str,
}

/// Place of a sequence or a dict in the [`Heap`].
pub(super) type Id = usize;

/// A value of a pickle, its text borrowed from the file.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Value<'a> {
    None,
    Bool(bool),
    Int(i64),
    /// An integer of more than 64 bits, as its little-endian bytes.
    Long(&'a [u8]),
    Text(&'a str),
    /// A float, bytes or a set: nothing that weights are made of.
    Plain,
    Global(Name<'a>),
    Tuple(Id),
    List(Id),
    Dict(Id),
    /// A storage by the tuple that describes it.
    Storage(Id),
    /// A tensor by the arguments of its `_rebuild_tensor_v2`.
    Tensor(Id),
    /// An object of any other class, or what any other function would have made.
    Object(Name<'a>),
}

/// The sequences and dicts that values refer to. Values hold only places, so that cycles and depth do no harm.
#[derive(Debug, Default)]
pub(super) struct Heap<'a> {
    sequences: Vec<Vec<Value<'a>>>,
    dicts: Vec<Vec<(Value<'a>, Value<'a>)>>,
    /// The tuples that describe storages, in the order of the file.
    pub(super) storages: Vec<Id>,
    /// Pairs copied so far by [`Heap::call`].
    copied: usize,
}

impl<'a> Heap<'a> {
    /// The items of a tuple or a list.
    pub(super) fn items(&self, id: Id) -> &[Value<'a>] {
        self.sequences.get(id).map_or(&[], Vec::as_slice)
    }

    /// The pairs of a dict, in the order they were set.
    pub(super) fn pairs(&self, id: Id) -> &[(Value<'a>, Value<'a>)] {
        self.dicts.get(id).map_or(&[], Vec::as_slice)
    }

    pub(super) fn sequence(&mut self, items: Vec<Value<'a>>) -> Id {
        self.sequences.push(items);
        self.sequences.len() - 1
    }

    pub(super) fn dict(&mut self) -> Id {
        self.dicts.push(Vec::new());
        self.dicts.len() - 1
    }

    /// Appends to a list; what is appended to an object is dropped. False if the target takes none.
    pub(super) fn append(&mut self, target: Value<'a>, items: &[Value<'a>]) -> bool {
        if let Value::List(id) = target
            && let Some(list) = self.sequences.get_mut(id)
        {
            list.extend_from_slice(items);
        }
        matches!(target, Value::List(_) | Value::Object(_) | Value::Plain)
    }

    /// Sets alternating keys and values in a dict; what is set in an object is dropped. False if the target takes none.
    pub(super) fn set(&mut self, target: Value<'a>, items: &[Value<'a>]) -> bool {
        let (pairs, rest) = items.as_chunks::<2>();
        if let Value::Dict(id) = target
            && let Some(dict) = self.dicts.get_mut(id)
        {
            dict.extend(pairs.iter().map(|&[key, value]| (key, value)));
        }
        rest.is_empty() && matches!(target, Value::Dict(_) | Value::Object(_) | Value::Plain)
    }

    /// What a persistent id stands for.
    pub(super) fn persistent(&mut self, id: Value<'a>) -> Value<'a> {
        match id {
            Value::Tuple(id) if self.items(id).first() == Some(&Value::Text("storage")) => {
                self.storages.push(id);
                Value::Storage(id)
            }
            // The legacy format writes the class of a pickled module with its source.
            Value::Tuple(id) if self.items(id).first() == Some(&Value::Text("module")) => {
                self.items(id).get(1).copied().unwrap_or(Value::Plain)
            }
            _ => Value::Plain,
        }
    }

    /// What a call stands for. Nothing is called: of the names known here the result is clear from the arguments.
    pub(super) fn call(&mut self, callable: Value<'a>, arguments: Id) -> Result<Value<'a>, Fault> {
        let Value::Global(name) = callable else { return Ok(Value::Plain) };
        let known = match (name.module, name.name, self.items(arguments)) {
            ("collections", "OrderedDict" | "defaultdict", &[Value::List(pairs)]) => Value::Dict(self.dict_of(pairs)?),
            ("collections", "OrderedDict" | "defaultdict", _) => Value::Dict(self.dict()),
            ("torch", "Size", &[size @ (Value::Tuple(_) | Value::List(_))]) => size,
            ("torch._utils", "_rebuild_tensor" | "_rebuild_tensor_v2", _) => Value::Tensor(arguments),
            (
                "torch._utils",
                "_rebuild_parameter" | "_rebuild_parameter_with_state",
                &[tensor @ Value::Tensor(_), ..],
            ) => tensor,
            // A tensor with attributes: the function and the arguments that make the tensor, and the attributes.
            (
                "torch._tensor",
                "_rebuild_from_type_v2",
                &[
                    Value::Global(Name { module: "torch._utils", name: "_rebuild_tensor_v2" }),
                    _,
                    Value::Tuple(inner),
                    ..,
                ],
            ) => Value::Tensor(inner),
            _ => Value::Object(name),
        };
        Ok(known)
    }

    /// A dict of a list of pairs. All such lists together are bounded, as one list may be used many times over.
    fn dict_of(&mut self, list: Id) -> Result<Id, Fault> {
        const MOST: usize = 1 << 20;
        self.copied = self.copied.saturating_add(self.items(list).len());
        if self.copied > MOST {
            return Err(Fault::TooLarge);
        }
        let mut pairs = Vec::new();
        for item in self.items(list) {
            if let &(Value::Tuple(pair) | Value::List(pair)) = item
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
