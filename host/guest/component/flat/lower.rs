//! Lowering: how values are laid out in a module's memory, and how the guest allocates for them.

use super::memory::{Result, aligned};
use crate::guest::engine::fault::misuse;
use guesthouse_module::flatten::REALLOC_DONE;

/// A value that the host writes into the guest's memory.
pub trait Lower {
    const SIZE: usize;
    const ALIGN: usize;
    fn lower(self, out: &mut Layout, at: At);
}

/// The most bytes of a result without what it points to: `future-incoming-response.get` has them.
const ROOT_BYTES: usize = 64;

/// A value as it will be in memory: the result itself, and pieces that it points to.
pub struct Layout {
    root: [u8; ROOT_BYTES],
    pieces: Vec<LayoutPiece>,
}

/// A position in a layout: the piece, 0 for the result itself, and the byte in it.
#[derive(Clone, Copy)]
pub struct At {
    piece: usize,
    byte: usize,
}

/// Bytes for which the guest has to allocate.
struct LayoutPiece {
    bytes: Vec<u8>,
    align: usize,
    /// Where the pointer to it is.
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

    /// Replaces the layout by that of another value.
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

    /// Writes a pointer and a length, and adds the piece that they describe.
    fn point(&mut self, at: At, bytes: Vec<u8>, align: usize, len: usize) -> usize {
        self.put(at, &(align as u32).to_le_bytes());
        self.put(at.plus(4), &(len as u32).to_le_bytes());
        self.pieces.push(LayoutPiece { bytes, align, parent: at });
        self.pieces.len()
    }

    fn set_pointer(&mut self, index: usize, ptr: u32) {
        let parent = self.pieces[index].parent;
        self.put(parent, &ptr.to_le_bytes());
    }
}

/// Stores a value at `ptr` that points to no other memory.
pub fn store<T: Lower>(memory: &mut [u8], ptr: u32, value: T) -> Result<()> {
    let layout = Layout::of(value);
    if !layout.pieces.is_empty() {
        return Err(misuse("a value without text has some"));
    }
    write(memory, ptr, &layout.root[..T::SIZE], T::ALIGN)
}

/// A result for which the guest allocates memory, piece by piece. Reused from one to the next, with
/// its allocations.
#[derive(Default)]
pub struct PendingResult {
    layout: Layout,
    /// The addresses of the first pieces, as far as the guest has allocated them.
    pointers: Vec<u32>,
    /// Whether the guest has been asked to allocate the next piece.
    is_allocating: bool,
    ret: u32,
    size: usize,
    align: usize,
}

impl PendingResult {
    /// Forgets the result, when an instance is reset.
    pub fn clear(&mut self) {
        self.layout.pieces.clear();
        self.is_allocating = false;
    }

    /// Begins with a value that goes to `ret`. Returns the first allocation that it needs.
    pub fn begin<T: Lower>(&mut self, memory: &mut [u8], ret: u32, value: T) -> Result<i64> {
        self.layout.begin(value);
        self.pointers.clear();
        self.is_allocating = false;
        (self.ret, self.size, self.align) = (ret, T::SIZE, T::ALIGN);
        self.lower_next(memory)
    }

    /// Continues with the address of the piece that was asked for. Returns the next allocation.
    pub fn resume(&mut self, memory: &mut [u8], ptr: u32) -> Result<i64> {
        if !std::mem::take(&mut self.is_allocating) {
            return Err(misuse("there is nothing to make room for"));
        }
        self.put(ptr);
        self.lower_next(memory)
    }

    fn put(&mut self, ptr: u32) {
        self.layout.set_pointer(self.pointers.len(), ptr);
        self.pointers.push(ptr);
    }

    /// Returns the next allocation, or writes the result if there is none left.
    fn lower_next(&mut self, memory: &mut [u8]) -> Result<i64> {
        while let Some(piece) = self.layout.pieces.get(self.pointers.len()) {
            let (len, align) = (piece.bytes.len() as u32, piece.align as u32);
            if len > 0 {
                self.is_allocating = true;
                return Ok(i64::from(align) << 32 | i64::from(len));
            }
            // An empty piece needs no memory, so any aligned address will do.
            self.put(align);
        }
        for (piece, ptr) in self.layout.pieces.iter().zip(&self.pointers) {
            if !piece.bytes.is_empty() {
                write(memory, *ptr, &piece.bytes, piece.align)?;
            }
        }
        write(memory, self.ret, &self.layout.root[..self.size], self.align)?;
        self.layout.pieces.clear();
        Ok(REALLOC_DONE)
    }
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

/// A list of items that are not bytes.
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
