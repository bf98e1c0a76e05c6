//! The handle table of a flat component, by which the guest refers to resources.

use wasmtime::component::Resource;

use super::memory::Result;
use crate::guest::component::limits::HANDLES_MAX;
use crate::guest::engine::fault::misuse;

/// The type behind a kind of resource.
pub trait ResourceKind: 'static {
    /// Tells handles of this kind from others in the table.
    const KIND: u8;
}

/// The handles of one instance. They are counted from 1.
#[derive(Default)]
pub struct HandleTable {
    slots: Vec<Option<(u8, u32)>>,
    free: Vec<u32>,
}

impl HandleTable {
    /// Gives the instance a handle of a resource that it owns.
    pub fn put<T: ResourceKind>(&mut self, resource: Resource<T>) -> Result<u32> {
        self.put_raw(T::KIND, resource.rep())
    }

    /// Gives the instance a handle of a kind, for the number `rep`.
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

    /// The most handles that it has had at once.
    pub fn peak(&self) -> usize {
        self.slots.len()
    }

    /// Borrows a resource for the duration of a call.
    pub fn get<T: ResourceKind>(&self, handle: u32) -> Result<Resource<T>> {
        Ok(Resource::new_borrow(self.rep::<T>(handle)?))
    }

    /// Takes a resource, and its handle, from the instance.
    pub fn take<T: ResourceKind>(&mut self, handle: u32) -> Result<Resource<T>> {
        Ok(Resource::new_own(self.take_raw(T::KIND, handle)?))
    }

    /// Takes a handle of a kind from the instance, and returns its number.
    pub fn take_raw(&mut self, kind: u8, handle: u32) -> Result<u32> {
        let rep = self.rep_raw(kind, handle)?;
        self.slots[handle as usize - 1] = None;
        self.free.push(handle - 1);
        Ok(rep)
    }

    fn rep<T: ResourceKind>(&self, handle: u32) -> Result<u32> {
        self.rep_raw(T::KIND, handle)
    }

    /// The kind of a handle.
    pub fn kind(&self, handle: u32) -> Result<u8> {
        let slot = handle.checked_sub(1).and_then(|index| self.slots.get(index as usize));
        let slot = slot.copied().flatten();
        slot.map(|(kind, _)| kind).ok_or_else(|| misuse(format!("there is no handle {handle}")))
    }

    /// The number behind a handle of a kind.
    pub fn rep_raw(&self, wanted: u8, handle: u32) -> Result<u32> {
        let slot = handle.checked_sub(1).and_then(|index| self.slots.get(index as usize));
        match slot.copied().flatten() {
            Some((kind, rep)) if kind == wanted => Ok(rep),
            Some(_) => Err(misuse(format!("handle {handle} is of another resource"))),
            None => Err(misuse(format!("there is no handle {handle}"))),
        }
    }

    /// Removes all handles.
    pub fn clear(&mut self) {
        self.slots.clear();
        self.free.clear();
    }
}
