//! The cost of one instance. It is a sum, and some of its parts are known only at the end of the
//! file.

use std::ops::AddAssign;

use crate::limits::{
    CORE_INSTANCES_PER_SLOT, SMALL_IMAGE_BYTES_MAX, SMALL_IMAGE_PAGES_MAX, TABLES_PER_SLOT,
};

/// The cost of one instance of a guest, with all core instances in it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Size {
    /// Bytes of the engine's records for the instance, without memories, tables and stack.
    pub bytes: usize,
    /// Elements of all element segments, which are written when the instance is made.
    pub elements: usize,
    /// Bytes of all data segments.
    pub data_bytes: usize,
    /// Memory pages of 4 KiB that are written when the instance is made, if images are mapped.
    pub copied_pages: usize,
    /// The same if images are copied. Each image is copied from its first data to its last.
    pub pages: usize,
    /// Core instances, which the engine's pool limits, as it does memories and tables.
    pub instances: usize,
    /// Memories of all core instances.
    pub memories: usize,
    /// Tables of all core instances.
    pub tables: usize,
    /// Memories for which an image may be mapped.
    pub images: usize,
    /// Bytes of the decoded sections, which the engine keeps once for the guest.
    pub decoded_bytes: usize,
    /// Bytes of the memory images that the compiler makes of the data segments of all modules.
    pub image_bytes: u64,
    /// Instances of modules that come from another component, so each may be any module in the
    /// file.
    pub given_modules: usize,
    /// Instances of components that come from another component.
    pub given_components: usize,
}

/// The size of a module that may be any in the file, until [`Size::resolved`].
pub fn given_module() -> Size {
    Size { given_modules: 1, ..Size::default() }
}

/// The size of a component of which nothing is known.
pub fn given_component() -> Size {
    Size { given_components: 1, ..Size::default() }
}

impl AddAssign for Size {
    fn add_assign(&mut self, other: Size) {
        self.bytes = self.bytes.saturating_add(other.bytes);
        self.elements = self.elements.saturating_add(other.elements);
        self.copied_pages = self.copied_pages.saturating_add(other.copied_pages);
        self.data_bytes = self.data_bytes.saturating_add(other.data_bytes);
        self.pages = self.pages.saturating_add(other.pages);
        self.instances = self.instances.saturating_add(other.instances);
        self.memories = self.memories.saturating_add(other.memories);
        self.tables = self.tables.saturating_add(other.tables);
        self.images = self.images.saturating_add(other.images);
        self.given_modules = self.given_modules.saturating_add(other.given_modules);
        self.given_components = self.given_components.saturating_add(other.given_components);
    }
}

impl Size {
    /// The maximum of each field of one instance.
    pub fn max(self, other: Size) -> Size {
        Size {
            bytes: self.bytes.max(other.bytes),
            elements: self.elements.max(other.elements),
            data_bytes: self.data_bytes.max(other.data_bytes),
            copied_pages: self.copied_pages.max(other.copied_pages),
            pages: self.pages.max(other.pages),
            instances: self.instances.max(other.instances),
            memories: self.memories.max(other.memories),
            tables: self.tables.max(other.tables),
            images: self.images.max(other.images),
            ..self
        }
    }

    /// Adds `most` once for each given module.
    pub fn resolved(mut self, most: Size) -> Size {
        let times = self.given_modules;
        self += Size {
            bytes: most.bytes.saturating_mul(times),
            elements: most.elements.saturating_mul(times),
            data_bytes: most.data_bytes.saturating_mul(times),
            copied_pages: most.copied_pages.saturating_mul(times),
            pages: most.pages.saturating_mul(times),
            instances: most.instances.saturating_mul(times),
            memories: most.memories.saturating_mul(times),
            tables: most.tables.saturating_mul(times),
            images: most.images.saturating_mul(times),
            ..Size::default()
        };
        self
    }

    /// The number of slots of the engine's pool that the instance takes. A slot has room for one
    /// memory and a fixed number of core instances and tables.
    pub fn slots(&self) -> usize {
        let instances = self.instances.div_ceil(CORE_INSTANCES_PER_SLOT as usize);
        let tables = self.tables.div_ceil(TABLES_PER_SLOT as usize);
        instances.max(tables).max(self.memories).max(1)
    }

    /// Whether copying the images of its memories is cheaper than mapping them.
    pub fn is_small(&self) -> bool {
        self.data_bytes <= SMALL_IMAGE_BYTES_MAX && self.pages <= SMALL_IMAGE_PAGES_MAX
    }
}
