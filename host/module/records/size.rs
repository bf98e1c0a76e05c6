//! What one instance takes: a sum, of which some parts are known only when the file has ended.

use std::ops::AddAssign;

use crate::limits::{
    CORE_INSTANCES_PER_SLOT, SMALL_IMAGE_BYTES_MAX, SMALL_IMAGE_PAGES_MAX, TABLES_PER_SLOT,
};

/// What one instance takes.
#[derive(Clone, Copy, Debug, Default)]
pub struct Size {
    /// What the engine keeps.
    pub bytes: usize,
    /// Of all its element segments, which are written when it is made.
    pub elements: usize,
    /// Bytes of its data segments.
    pub data_bytes: usize,
    /// Pages of its memories that are written when it is made, where images are mapped.
    pub copied_pages: usize,
    /// The same where images are copied, each of them from its first data to its last.
    pub pages: usize,
    /// What is counted in its engine's pool: instances of modules, memories and tables.
    pub instances: usize,
    pub memories: usize,
    pub tables: usize,
    /// Memories of which an image may be mapped.
    pub images: usize,
    /// What the engine keeps once of the sections, decoded.
    pub decoded_bytes: usize,
    /// Bytes of the images of memories that the compiler makes of the data segments of all modules.
    pub image_bytes: u64,
    /// Modules in it that another component has given, so that any in the file may be meant.
    pub given_modules: usize,
    /// Components in it that another one has given.
    pub given_components: usize,
}

/// One of which only the file's end tells how large it can be.
pub fn given_module() -> Size {
    Size { given_modules: 1, ..Size::default() }
}

/// One of which nothing is known.
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
    /// What is the most of each.
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

    /// With as much for each module that was given as `most`.
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

    /// Instance slots of its engine that it takes: a slot has room for so many of each part.
    pub fn slots(&self) -> usize {
        let instances = self.instances.div_ceil(CORE_INSTANCES_PER_SLOT as usize);
        let tables = self.tables.div_ceil(TABLES_PER_SLOT as usize);
        instances.max(tables).max(self.memories).max(1)
    }

    /// Whether images of its memories are better copied than mapped.
    pub fn is_small(&self) -> bool {
        self.data_bytes <= SMALL_IMAGE_BYTES_MAX && self.pages <= SMALL_IMAGE_PAGES_MAX
    }
}
