//! The canonical ABI: handles, values in a module's memory, and values for it.

use std::marker::PhantomData;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use guesthouse_module::flatten::NOTHING;
use wasmtime::component::Resource;
use wasmtime::{Caller, Memory};

use super::tasks::Tasks;
use crate::guest::component::State;
use crate::guest::component::state::{HANDLES_MAX, HOSTCALL_FUEL};
use crate::guest::core::misuse;

pub type Guest<'a> = Caller<'a, State>;
pub type Result<T, E = wasmtime::Error> = std::result::Result<T, E>;

/// What the host knows of a flattened component's instance.
#[derive(Default)]
pub struct Canon {
    pub memory: Option<Memory>,
    pub pending: Pending,
    pub handles: Handles,
    /// What the calls of a guest of 0.3 wait for.
    pub tasks: Tasks,
    /// Whether the last `poll` has found something ready that the guest has made no use of yet.
    pub has_polled: bool,
}

/// A type of resource, by the type behind it.
pub trait Held: 'static {
    /// Tells it from the others in an instance's table of handles.
    const KIND: u8;
}

/// The handles that an instance has: owned resources, by index from 1.
#[derive(Default)]
pub struct Handles {
    slots: Vec<Option<(u8, u32)>>,
    free: Vec<u32>,
}

impl Handles {
    /// Gives the instance a resource.
    pub fn put<T: Held>(&mut self, resource: Resource<T>) -> Result<u32> {
        self.put_raw(T::KIND, resource.rep())
    }

    /// Gives the instance something of a kind.
    pub fn put_raw(&mut self, kind: u8, rep: u32) -> Result<u32> {
        let entry = Some((kind, rep));
        if let Some(index) = self.free.pop() {
            self.slots[index as usize] = entry;
            return Ok(index + 1);
        }
        if self.slots.len() >= HANDLES_MAX {
            return Err(misuse("it has too many resources open"));
        }
        self.slots.push(entry);
        Ok(self.slots.len() as u32)
    }

    /// The most that it has had at once.
    pub fn most(&self) -> usize {
        self.slots.len()
    }

    /// A resource for the time of a call.
    pub fn get<T: Held>(&self, handle: u32) -> Result<Resource<T>> {
        Ok(Resource::new_borrow(self.rep::<T>(handle)?))
    }

    /// Takes a resource away from the instance.
    pub fn take<T: Held>(&mut self, handle: u32) -> Result<Resource<T>> {
        Ok(Resource::new_own(self.take_raw(T::KIND, handle)?))
    }

    /// Takes something of a kind away from the instance.
    pub fn take_raw(&mut self, kind: u8, handle: u32) -> Result<u32> {
        let rep = self.rep_raw(kind, handle)?;
        self.slots[handle as usize - 1] = None;
        self.free.push(handle - 1);
        Ok(rep)
    }

    fn rep<T: Held>(&self, handle: u32) -> Result<u32> {
        self.rep_raw(T::KIND, handle)
    }

    /// What kind of thing a handle is of.
    pub fn kind(&self, handle: u32) -> Result<u8> {
        let slot = handle.checked_sub(1).and_then(|index| self.slots.get(index as usize));
        let slot = slot.copied().flatten();
        slot.map(|(kind, _)| kind).ok_or_else(|| misuse(format!("there is no handle {handle}")))
    }

    /// What is behind a handle of a kind.
    pub fn rep_raw(&self, wanted: u8, handle: u32) -> Result<u32> {
        let slot = handle.checked_sub(1).and_then(|index| self.slots.get(index as usize));
        match slot.copied().flatten() {
            Some((kind, rep)) if kind == wanted => Ok(rep),
            Some(_) => Err(misuse(format!("handle {handle} is of another resource"))),
            None => Err(misuse(format!("there is no handle {handle}"))),
        }
    }

    /// As at first.
    pub fn clear(&mut self) {
        self.slots.clear();
        self.free.clear();
    }
}

/// The memory of the guest beside the rest of its store's data.
pub fn parts<'a>(guest: &'a mut Guest<'_>) -> Result<(&'a mut [u8], &'a mut State)> {
    let memory = guest.data().canon.memory.ok_or_else(|| misuse("it has no memory yet"))?;
    Ok(memory.data_and_store_mut(guest))
}

/// A range of the guest's memory.
pub fn range(memory: &[u8], ptr: u32, len: u32) -> Result<&[u8]> {
    if len as usize > HOSTCALL_FUEL {
        return Err(misuse(format!("{len} bytes are too many for one call")));
    }
    memory
        .get(ptr as usize..)
        .and_then(|tail| tail.get(..len as usize))
        .ok_or_else(|| misuse(format!("pointer {ptr} with length {len} is outside of its memory")))
}

pub fn list(memory: &[u8], ptr: u32, len: u32) -> Result<Vec<u8>> {
    range(memory, ptr, len).map(<[u8]>::to_vec)
}

pub fn string(memory: &[u8], ptr: u32, len: u32) -> Result<String> {
    let bytes = list(memory, ptr, len)?;
    String::from_utf8(bytes).map_err(|_| misuse("a string is not UTF-8"))
}

/// A list of pairs of pointer and length.
pub fn pairs(memory: &[u8], ptr: u32, len: u32) -> Result<impl Iterator<Item = (u32, u32)>> {
    aligned(ptr, 4)?;
    let bytes = range(memory, ptr, len.saturating_mul(8))?;
    let word = |bytes: &[u8]| u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
    Ok(bytes.chunks_exact(8).map(move |pair| (word(pair), word(&pair[4..]))))
}

/// The lists that a list of pairs of pointer and length points to, all of them together bounded.
pub fn lists(memory: &[u8], ptr: u32, len: u32) -> Result<Vec<Vec<u8>>> {
    let mut bytes_left = HOSTCALL_FUEL;
    let lists = pairs(memory, ptr, len)?.map(|(ptr, len)| {
        let left = bytes_left.checked_sub(len as usize);
        bytes_left = left.ok_or_else(|| misuse("its lists are too long for one call"))?;
        list(memory, ptr, len)
    });
    lists.collect()
}

pub fn aligned(ptr: u32, align: usize) -> Result<()> {
    if (ptr as usize).is_multiple_of(align) {
        return Ok(());
    }
    Err(misuse(format!("pointer {ptr} is not aligned to {align}")))
}

/// An option's or a result's first word: 0 or 1.
pub fn flag(value: u32) -> Result<bool> {
    match value {
        0 => Ok(false),
        1 => Ok(true),
        _ => Err(misuse(format!("{value} is not a case of two"))),
    }
}

/// What comes of a future that does not wait.
pub fn at_once<T>(future: impl Future<Output = Result<T>>) -> Result<T> {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(value) => value,
        Poll::Pending => Err(misuse("a call that does not wait would have had to")),
    }
}

/// A value that the host gives the guest, in the guest's memory.
pub trait Lower {
    const SIZE: usize;
    const ALIGN: usize;
    fn lower(self, out: &mut Layout, at: At);
}

/// The most that a result takes by itself: that of `future-incoming-response.get`.
const ROOT_BYTES: usize = 64;

/// A value as it is going to be in memory: the result itself, and what it points to.
pub struct Layout {
    root: [u8; ROOT_BYTES],
    pieces: Vec<Piece>,
}

/// A place in a layout: which piece, 0 for the result itself, and the byte in it.
#[derive(Clone, Copy)]
pub struct At {
    piece: usize,
    byte: usize,
}

/// Bytes that need room of their own.
struct Piece {
    bytes: Vec<u8>,
    align: usize,
    /// Where its pointer goes.
    parent: At,
}

impl At {
    pub fn plus(self, bytes: usize) -> At {
        At { byte: self.byte + bytes, ..self }
    }
}

impl Default for Layout {
    fn default() -> Self {
        Layout { root: [0; ROOT_BYTES], pieces: Vec::new() }
    }
}

impl Layout {
    fn of<T: Lower>(value: T) -> Layout {
        let mut layout = Layout::default();
        layout.begin(value);
        layout
    }

    /// Takes this value in the place of the one before.
    fn begin<T: Lower>(&mut self, value: T) {
        const { assert!(T::SIZE <= ROOT_BYTES, "a result is larger than the room for it") };
        self.root = [0; ROOT_BYTES];
        self.pieces.clear();
        value.lower(self, At { piece: 0, byte: 0 });
    }

    pub fn put(&mut self, at: At, bytes: &[u8]) {
        let piece = match at.piece {
            0 => &mut self.root[..],
            piece => &mut self.pieces[piece - 1].bytes[..],
        };
        piece[at.byte..at.byte + bytes.len()].copy_from_slice(bytes);
    }

    /// A pointer and a length, and a new piece for what they point to.
    fn point(&mut self, at: At, bytes: Vec<u8>, align: usize, len: usize) -> usize {
        self.put(at, &(align as u32).to_le_bytes());
        self.put(at.plus(4), &(len as u32).to_le_bytes());
        self.pieces.push(Piece { bytes, align, parent: at });
        self.pieces.len()
    }

    fn set_pointer(&mut self, index: usize, ptr: u32) {
        let parent = self.pieces[index].parent;
        self.put(parent, &ptr.to_le_bytes());
    }
}

/// Gives the guest a result that needs no room beside its own.
pub fn give<T: Lower>(guest: &mut Guest<'_>, ret: u32, value: T) -> Result<()> {
    let (memory, _) = parts(guest)?;
    store(memory, ret, value)
}

/// Puts a value that needs no room beside its own where the guest wants it.
pub fn store<T: Lower>(memory: &mut [u8], ptr: u32, value: T) -> Result<()> {
    let layout = Layout::of(value);
    if !layout.pieces.is_empty() {
        return Err(misuse("a value without text has some"));
    }
    write(memory, ptr, &layout.root[..T::SIZE], T::ALIGN)
}

/// A result on its way to the guest, which makes room for it piece by piece. Kept from one to the
/// next, with its own room.
#[derive(Default)]
pub struct Pending {
    layout: Layout,
    /// Where the pieces are, as far as that is known.
    places: Vec<u32>,
    /// Whether the guest has been asked for the place of the next piece.
    is_asked: bool,
    ret: u32,
    size: usize,
    align: usize,
}

impl Pending {
    /// As at first.
    pub fn clear(&mut self) {
        self.layout.pieces.clear();
        self.is_asked = false;
    }

    fn put(&mut self, ptr: u32) {
        self.layout.set_pointer(self.places.len(), ptr);
        self.places.push(ptr);
    }

    /// What room is needed next; or writes the result, if that is all.
    fn go_on(&mut self, memory: &mut [u8]) -> Result<i64> {
        while let Some(piece) = self.layout.pieces.get(self.places.len()) {
            let (len, align) = (piece.bytes.len() as u32, piece.align as u32);
            if len > 0 {
                self.is_asked = true;
                return Ok(i64::from(align) << 32 | i64::from(len));
            }
            // Nothing is at the address of nothing.
            self.put(align);
        }
        for (piece, ptr) in self.layout.pieces.iter().zip(&self.places) {
            if !piece.bytes.is_empty() {
                write(memory, *ptr, &piece.bytes, piece.align)?;
            }
        }
        write(memory, self.ret, &self.layout.root[..self.size], self.align)?;
        self.layout.pieces.clear();
        Ok(NOTHING)
    }
}

/// Begins to give the guest a result. What it gets to know is what room is needed first, and from
/// [`place`] what next (`flatten/rooms.rs`).
pub fn give_all<T: Lower>(guest: &mut Guest<'_>, ret: u32, value: T) -> Result<i64> {
    let (memory, state) = parts(guest)?;
    let pending = &mut state.canon.pending;
    pending.layout.begin(value);
    pending.places.clear();
    pending.is_asked = false;
    (pending.ret, pending.size, pending.align) = (ret, T::SIZE, T::ALIGN);
    pending.go_on(memory)
}

/// Takes the place of the piece that was asked for.
pub fn place(mut guest: Guest<'_>, ptr: u32) -> Result<i64> {
    let (memory, state) = parts(&mut guest)?;
    let pending = &mut state.canon.pending;
    if !std::mem::take(&mut pending.is_asked) {
        return Err(misuse("there is nothing to make room for"));
    }
    pending.put(ptr);
    pending.go_on(memory)
}

fn write(memory: &mut [u8], ptr: u32, bytes: &[u8], align: usize) -> Result<()> {
    aligned(ptr, align)?;
    let tail = memory.get_mut(ptr as usize..);
    let place = tail.and_then(|tail| tail.get_mut(..bytes.len()));
    let place =
        place.ok_or_else(|| misuse(format!("pointer {ptr} for a result is out of its memory")))?;
    place.copy_from_slice(bytes);
    Ok(())
}

macro_rules! lower_numbers {
    ($($number:ty),*) => {$(
        impl Lower for $number {
            const SIZE: usize = size_of::<$number>();
            const ALIGN: usize = size_of::<$number>();
            fn lower(self, out: &mut Layout, at: At) {
                out.put(at, &self.to_le_bytes());
            }
        }
    )*};
}
lower_numbers!(u8, u16, u32, u64);

impl Lower for () {
    const SIZE: usize = 0;
    const ALIGN: usize = 1;
    fn lower(self, _out: &mut Layout, _at: At) {}
}

impl Lower for Vec<u8> {
    const SIZE: usize = 8;
    const ALIGN: usize = 4;
    fn lower(self, out: &mut Layout, at: At) {
        let len = self.len();
        out.point(at, self, 1, len);
    }
}

impl Lower for String {
    const SIZE: usize = 8;
    const ALIGN: usize = 4;
    fn lower(self, out: &mut Layout, at: At) {
        self.into_bytes().lower(out, at);
    }
}

/// A list of anything but bytes.
pub struct List<T>(pub Vec<T>);

impl<T: Lower> Lower for List<T> {
    const SIZE: usize = 8;
    const ALIGN: usize = 4;
    fn lower(self, out: &mut Layout, at: At) {
        let len = self.0.len();
        let piece = out.point(at, vec![0; len * T::SIZE], T::ALIGN, len);
        for (index, item) in self.0.into_iter().enumerate() {
            item.lower(out, At { piece, byte: index * T::SIZE });
        }
    }
}

impl<A: Lower, B: Lower> Lower for (A, B) {
    const SIZE: usize =
        (A::SIZE.next_multiple_of(B::ALIGN) + B::SIZE).next_multiple_of(max(A::ALIGN, B::ALIGN));
    const ALIGN: usize = max(A::ALIGN, B::ALIGN);
    fn lower(self, out: &mut Layout, at: At) {
        self.0.lower(out, at);
        self.1.lower(out, at.plus(A::SIZE.next_multiple_of(B::ALIGN)));
    }
}

impl<T: Lower> Lower for Option<T> {
    const SIZE: usize = (T::ALIGN + T::SIZE).next_multiple_of(T::ALIGN);
    const ALIGN: usize = T::ALIGN;
    fn lower(self, out: &mut Layout, at: At) {
        out.put(at, &[u8::from(self.is_some())]);
        if let Some(value) = self {
            value.lower(out, at.plus(T::ALIGN));
        }
    }
}

impl<T: Lower, E: Lower> Lower for std::result::Result<T, E> {
    const SIZE: usize = (Self::ALIGN + max(T::SIZE, E::SIZE)).next_multiple_of(Self::ALIGN);
    const ALIGN: usize = max(T::ALIGN, E::ALIGN);
    fn lower(self, out: &mut Layout, at: At) {
        out.put(at, &[u8::from(self.is_err())]);
        match self {
            Ok(value) => value.lower(out, at.plus(Self::ALIGN)),
            Err(error) => error.lower(out, at.plus(Self::ALIGN)),
        }
    }
}

pub const fn max(a: usize, b: usize) -> usize {
    if a > b { a } else { b }
}

/// A handle of a resource that the guest has been given.
pub struct Own<T>(pub u32, PhantomData<T>);

impl<T: Held> Own<T> {
    pub fn new(state: &mut State, resource: Resource<T>) -> Result<Self> {
        Ok(Own(state.give(resource)?, PhantomData))
    }
}

impl<T> Lower for Own<T> {
    const SIZE: usize = 4;
    const ALIGN: usize = 4;
    fn lower(self, out: &mut Layout, at: At) {
        self.0.lower(out, at);
    }
}

/// A result with a resource in it, as the guest gets it.
pub fn owned<T: Held, E>(
    state: &mut State,
    result: std::result::Result<Resource<T>, E>,
) -> Result<std::result::Result<Own<T>, E>> {
    Ok(match result {
        Ok(resource) => Ok(Own::new(state, resource)?),
        Err(error) => Err(error),
    })
}
