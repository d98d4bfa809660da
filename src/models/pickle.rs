//! Just enough of Python's pickle format to find the tensors of a PyTorch checkpoint. Nothing
//! is ever executed: a class or function that is not in the short list here becomes [`Node::Opaque`].
//!
//! Values live in one arena and refer to each other by index, so that no input, however deeply
//! nested, can exhaust the stack, and memory stays proportional to the length of the input.

use std::collections::HashMap;

use super::WeightsError;

/// Longer names and shapes are refused: a short pickle may refer to a long one any number of
/// times, and each use would copy it.
const LONGEST_NAME: usize = 1000;
const MOST_AXES: usize = 8;
/// Checkpoints have some thousand values in addition to the storages; each takes memory here.
const MOST_VALUES: usize = 8_000_000;

/// Index of a value in [`Pickle::nodes`].
pub(super) type Id = usize;

/// One unpickled value.
#[derive(Debug, Clone)]
pub(super) enum Node {
    None,
    Bool,
    Int(i64),
    Text(String),
    Sequence(Vec<Id>),
    Dict(Vec<(Id, Id)>),
    Global(String),
    Storage(Box<Storage>),
    Tensor(Box<View>),
    Opaque,
}

/// A reference to a storage: a run of values of one type, kept outside the pickle.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Storage {
    /// Name of the storage class, like `FloatStorage`.
    pub class: String,
    pub key: String,
    pub values: usize,
    /// Offset of this view in the storage of that key.
    pub offset: usize,
}

/// A tensor: a strided view of a storage.
#[derive(Debug, Clone)]
pub(super) struct View {
    pub storage: Storage,
    pub offset: usize,
    pub shape: Vec<usize>,
    pub strides: Vec<usize>,
}

/// An unpickled value and everything it refers to.
pub(super) struct Pickle {
    pub nodes: Vec<Node>,
    pub root: Id,
    /// Bytes read, the STOP opcode included.
    pub length: usize,
}

impl Pickle {
    pub fn node(&self, id: Id) -> &Node {
        self.nodes.get(id).unwrap_or(&Node::Opaque)
    }
}

/// Reads one pickle from the beginning of `bytes`.
///
/// # Errors
/// When the bytes are not a pickle, end early, or use an opcode that checkpoints never hold.
pub(super) fn read(bytes: &[u8]) -> Result<Pickle, WeightsError> {
    let mut machine = Machine {
        bytes,
        at: 0,
        nodes: Vec::new(),
        stack: Vec::new(),
        marks: Vec::new(),
        memo: HashMap::new(),
        budget: bytes.len(),
    };
    while machine.step()? {}
    let root = machine.pop()?;
    Ok(Pickle { nodes: machine.nodes, root, length: machine.at })
}

fn corrupt(cause: impl Into<String>) -> WeightsError {
    WeightsError::Corrupt { format: "PyTorch", cause: cause.into() }
}

struct Machine<'a> {
    bytes: &'a [u8],
    at: usize,
    nodes: Vec<Node>,
    stack: Vec<Id>,
    marks: Vec<usize>,
    memo: HashMap<u32, Id>,
    /// The number of items that constructors may still copy.
    budget: usize,
}

impl<'a> Machine<'a> {
    fn take(&mut self, length: usize) -> Result<&'a [u8], WeightsError> {
        let end = self.at.checked_add(length);
        let bytes = end
            .and_then(|end| self.bytes.get(self.at..end))
            .ok_or_else(|| corrupt("the pickle ends early"))?;
        self.at += length;
        Ok(bytes)
    }

    fn byte(&mut self) -> Result<u8, WeightsError> {
        self.array().map(|[byte]| byte)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], WeightsError> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N)?);
        Ok(array)
    }

    fn length(&mut self) -> Result<usize, WeightsError> {
        Ok(u32::from_le_bytes(self.array()?) as usize)
    }

    fn line(&mut self) -> Result<String, WeightsError> {
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        let length =
            rest.iter().position(|&byte| byte == b'\n').ok_or_else(|| corrupt("the pickle ends early"))?;
        let line = String::from_utf8_lossy(self.take(length)?).into_owned();
        self.at += 1;
        Ok(line)
    }

    fn pop(&mut self) -> Result<Id, WeightsError> {
        let bottom = self.marks.last().copied().unwrap_or(0);
        match self.stack.len() > bottom {
            true => self.stack.pop().ok_or_else(|| corrupt("the pickle's stack is empty")),
            false => Err(corrupt("the pickle's stack is empty")),
        }
    }

    fn top(&self) -> Result<Id, WeightsError> {
        self.stack.last().copied().ok_or_else(|| corrupt("the pickle's stack is empty"))
    }

    fn push(&mut self, node: Node) {
        self.stack.push(self.nodes.len());
        self.nodes.push(node);
    }

    fn push_text(&mut self, length: usize) -> Result<(), WeightsError> {
        let text = String::from_utf8_lossy(self.take(length)?).into_owned();
        self.push(Node::Text(text));
        Ok(())
    }

    fn since_mark(&mut self) -> Result<Vec<Id>, WeightsError> {
        let mark = self.marks.pop().ok_or_else(|| corrupt("the pickle has no mark where one is needed"))?;
        Ok(self.stack.split_off(mark.min(self.stack.len())))
    }

    fn push_long(&mut self, length: usize) -> Result<(), WeightsError> {
        let bytes = self.take(length)?;
        let node = match bytes {
            [] => Node::Int(0),
            [.., last] if bytes.len() <= 8 => {
                let mut wide = [if last & 0x80 == 0 { 0 } else { 0xff }; 8];
                wide[..bytes.len()].copy_from_slice(bytes);
                Node::Int(i64::from_le_bytes(wide))
            }
            _ => Node::Opaque,
        };
        self.push(node);
        Ok(())
    }

    fn remember(&mut self, slot: u32) -> Result<(), WeightsError> {
        let top = self.top()?;
        self.memo.insert(slot, top);
        Ok(())
    }

    fn recall(&mut self, slot: u32) -> Result<(), WeightsError> {
        let id = *self
            .memo
            .get(&slot)
            .ok_or_else(|| corrupt("the pickle refers to a value it has not defined"))?;
        self.stack.push(id);
        Ok(())
    }

    /// Puts pairs into the dictionary on top of the stack; other objects ignore them.
    fn set_items(&mut self, items: &[Id]) -> Result<(), WeightsError> {
        let top = self.top()?;
        if let Some(Node::Dict(pairs)) = self.nodes.get_mut(top) {
            pairs.extend(items.as_chunks().0.iter().map(|&[key, value]| (key, value)));
        }
        Ok(())
    }

    fn append(&mut self, items: &[Id]) -> Result<(), WeightsError> {
        let top = self.top()?;
        if let Some(Node::Sequence(list)) = self.nodes.get_mut(top) {
            list.extend(items);
        }
        Ok(())
    }

    /// Executes one opcode; false at the end.
    fn step(&mut self) -> Result<bool, WeightsError> {
        if self.nodes.len() > MOST_VALUES {
            return Err(corrupt("the pickle holds millions of values"));
        }
        match self.byte()? {
            b'.' => return Ok(false),
            0x80 => {
                self.byte()?;
            }
            0x95 => {
                self.take(8)?;
            }
            b'(' => self.marks.push(self.stack.len()),
            b'0' => {
                self.pop()?;
            }
            b'1' => {
                self.since_mark()?;
            }
            b'2' => {
                let top = self.top()?;
                self.stack.push(top);
            }
            b'N' => self.push(Node::None),
            0x88 | 0x89 => self.push(Node::Bool),
            b'J' => {
                let value = i32::from_le_bytes(self.array()?);
                self.push(Node::Int(value.into()));
            }
            b'K' => {
                let value = self.byte()?;
                self.push(Node::Int(value.into()));
            }
            b'M' => {
                let value = u16::from_le_bytes(self.array()?);
                self.push(Node::Int(value.into()));
            }
            0x8a => {
                let length = self.byte()?.into();
                self.push_long(length)?;
            }
            0x8b => {
                let length = self.length()?;
                self.push_long(length)?;
            }
            b'G' => {
                self.take(8)?;
                self.push(Node::Opaque);
            }
            b'I' | b'L' => {
                let line = self.line()?;
                let value = line.trim_end_matches('L').parse();
                self.push(value.map_or(Node::Opaque, Node::Int));
            }
            b'F' => {
                self.line()?;
                self.push(Node::Opaque);
            }
            // Python 2 wrote names as byte strings.
            b'U' | 0x8c | b'C' => {
                let length = self.byte()?.into();
                self.push_text(length)?;
            }
            b'T' | b'X' | b'B' => {
                let length = self.length()?;
                self.push_text(length)?;
            }
            0x8d | 0x8e => {
                let length = u64::from_le_bytes(self.array()?);
                self.push_text(usize::try_from(length).unwrap_or(usize::MAX))?;
            }
            b']' | b')' | 0x8f => self.push(Node::Sequence(Vec::new())),
            b'}' => self.push(Node::Dict(Vec::new())),
            b't' | b'l' | 0x91 => {
                let items = self.since_mark()?;
                self.push(Node::Sequence(items));
            }
            code @ 0x85..=0x87 => {
                let mut items = Vec::new();
                for _ in 0x84..code {
                    items.push(self.pop()?);
                }
                items.reverse();
                self.push(Node::Sequence(items));
            }
            b'd' => {
                let items = self.since_mark()?;
                self.push(Node::Dict(Vec::new()));
                self.set_items(&items)?;
            }
            b'a' => {
                let item = self.pop()?;
                self.append(&[item])?;
            }
            b'e' | 0x90 => {
                let items = self.since_mark()?;
                self.append(&items)?;
            }
            b's' => {
                let (value, key) = (self.pop()?, self.pop()?);
                self.set_items(&[key, value])?;
            }
            b'u' => {
                let items = self.since_mark()?;
                self.set_items(&items)?;
            }
            b'c' => {
                let (module, name) = (self.line()?, self.line()?);
                self.push(Node::Global(format!("{module}.{name}")));
            }
            0x93 => {
                let (name, module) = (self.pop()?, self.pop()?);
                let (Some(module), Some(name)) = (self.text(Some(&module)), self.text(Some(&name))) else {
                    return Err(corrupt("a class in the pickle has no name"));
                };
                let global = format!("{module}.{name}");
                self.push(Node::Global(global));
            }
            b'R' | 0x81 => {
                let (arguments, callable) = (self.pop()?, self.pop()?);
                let node = self.construct(callable, arguments)?;
                self.push(node);
            }
            0x92 => {
                self.pop()?;
                self.pop()?;
                self.pop()?;
                self.push(Node::Opaque);
            }
            // The state of an object. Dictionaries carry a version number there, tensors nothing
            // that is needed.
            b'b' => {
                self.pop()?;
                self.top()?;
            }
            b'q' => {
                let slot = self.byte()?;
                self.remember(slot.into())?;
            }
            b'r' => {
                let slot = u32::from_le_bytes(self.array()?);
                self.remember(slot)?;
            }
            0x94 => self.remember(u32::try_from(self.memo.len()).unwrap_or(u32::MAX))?,
            b'h' => {
                let slot = self.byte()?;
                self.recall(slot.into())?;
            }
            b'j' => {
                let slot = u32::from_le_bytes(self.array()?);
                self.recall(slot)?;
            }
            b'Q' => {
                let id = self.pop()?;
                let node = self.storage(id)?;
                self.push(node);
            }
            other => return Err(corrupt(format!("pickle opcode {other:#04x} at byte {}", self.at - 1))),
        }
        Ok(true)
    }

    fn sequence(&self, id: Id) -> &[Id] {
        match self.nodes.get(id) {
            Some(Node::Sequence(items)) => items,
            _ => &[],
        }
    }

    fn size(&self, id: Option<&Id>) -> Option<usize> {
        match self.nodes.get(*id?)? {
            Node::Int(value) => usize::try_from(*value).ok(),
            _ => None,
        }
    }

    fn sizes(&self, id: Option<&Id>) -> Option<Vec<usize>> {
        match self.nodes.get(*id?)? {
            Node::Sequence(items) if items.len() <= MOST_AXES => {
                items.iter().map(|item| self.size(Some(item))).collect()
            }
            _ => None,
        }
    }

    fn text(&self, id: Option<&Id>) -> Option<String> {
        match self.nodes.get(*id?)? {
            Node::Text(text) if text.len() <= LONGEST_NAME => Some(text.clone()),
            _ => None,
        }
    }

    /// The few constructors that a state dictionary needs.
    fn construct(&mut self, callable: Id, arguments: Id) -> Result<Node, WeightsError> {
        let Some(Node::Global(name)) = self.nodes.get(callable) else { return Ok(Node::Opaque) };
        match name.as_str() {
            "collections.OrderedDict" => {
                // Python 2 passed the items to the constructor: ([[key, value], ...],).
                let items = self.sequence(arguments).first().map_or(&[][..], |&list| self.sequence(list));
                let budget = self.budget.checked_sub(items.len());
                let budget = budget.ok_or_else(|| corrupt("a list in the pickle is used too often"))?;
                let pairs = items.iter().filter_map(|&item| match self.sequence(item) {
                    &[key, value] => Some((key, value)),
                    _ => None,
                });
                let pairs = pairs.collect();
                self.budget = budget;
                Ok(Node::Dict(pairs))
            }
            "torch._utils._rebuild_tensor" | "torch._utils._rebuild_tensor_v2" => {
                let arguments = self.sequence(arguments);
                let storage = match arguments.first().and_then(|&id| self.nodes.get(id)) {
                    Some(Node::Storage(storage)) => Some(storage.as_ref().clone()),
                    _ => None,
                };
                let view = || {
                    Some(View {
                        storage: storage?,
                        offset: self.size(arguments.get(1))?,
                        shape: self.sizes(arguments.get(2))?,
                        strides: self.sizes(arguments.get(3))?,
                    })
                };
                view()
                    .map(|view| Node::Tensor(Box::new(view)))
                    .ok_or_else(|| corrupt("a tensor in the pickle is malformed"))
            }
            "torch._utils._rebuild_parameter" => {
                match self.sequence(arguments).first().and_then(|&id| self.nodes.get(id)) {
                    Some(Node::Tensor(view)) => Ok(Node::Tensor(view.clone())),
                    _ => Ok(Node::Opaque),
                }
            }
            _ => Ok(Node::Opaque),
        }
    }

    /// `("storage", class, key, device, values[, (view key, view offset, view values)])`.
    fn storage(&self, id: Id) -> Result<Node, WeightsError> {
        let fields = self.sequence(id);
        let parse = || {
            if self.text(fields.first())? != "storage" {
                return None;
            }
            let Node::Global(class) = self.nodes.get(*fields.get(1)?)? else { return None };
            let offset = match fields.get(5) {
                Some(&view) => self.size(self.sequence(view).get(1)).unwrap_or(0),
                None => 0,
            };
            Some(Storage {
                class: class.rsplit('.').next().filter(|class| class.len() <= LONGEST_NAME)?.to_owned(),
                key: self.text(fields.get(2))?,
                values: self.size(fields.get(4))?,
                offset,
            })
        };
        // Checkpoints of 2017 also carry ("module", class, file, source) of pickled modules.
        Ok(parse().map_or(Node::Opaque, |storage| Node::Storage(Box::new(storage))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_is_never_made() {
        // cposix\nsystem\n('touch /nowhere'), REDUCE
        let pickle = read(b"\x80\x02cposix\nsystem\nU\x0etouch /nowhere\x85R.").unwrap();
        assert!(matches!(pickle.node(pickle.root), Node::Opaque));
    }

    #[test]
    fn items_given_to_the_constructor_by_python_2_are_read() {
        let pickle = read(b"\x80\x02ccollections\nOrderedDict\n](]U\x01aaK\x07ae\x85R.");
        // MARK between the lists keeps `e` for the outer one.
        let pickle = pickle.unwrap();
        let Node::Dict(pairs) = pickle.node(pickle.root) else { panic!("no dictionary") };
        assert_eq!(pairs.len(), 1);
        assert!(matches!(pickle.node(pairs[0].1), Node::Int(7)));
    }

    #[test]
    fn deep_nesting_needs_no_stack() {
        let mut bytes = vec![b')'];
        bytes.resize(2_000_000, 0x85);
        bytes.push(b'.');
        assert!(matches!(read(&bytes).unwrap().nodes.len(), 2_000_000));
    }

    #[test]
    fn a_list_used_over_and_over_does_not_fill_the_memory() {
        // A list of 10,000 pairs, given to 10,000 constructors.
        let mut bytes = b"](".to_vec();
        bytes.extend(b"NN\x86".repeat(10_000));
        bytes.extend(b"eq\x00ccollections\nOrderedDict\nq\x01");
        bytes.extend(b"h\x01h\x00\x85R0".repeat(10_000));
        bytes.push(b'.');
        assert!(read(&bytes).is_err());
    }

    #[test]
    fn nonsense_is_refused() {
        for bytes in [
            &b""[..],
            b".",
            b"t.",
            b"h\x05.",
            b"X\xff\xff\xff\xff.",
            b"\x8b\xff\xff\xff\xffa",
            b"\xf3.",
            b"(0.",
        ] {
            assert!(read(bytes).is_err(), "{bytes:?}");
        }
    }
}
