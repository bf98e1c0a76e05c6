//! Which functions can be inside of each other many times: those of a recursion, and all where the
//! longest chain of calls is long.
//!
//! Owns the graph of calls. Such functions end one after the other, and no function is entered
//! meanwhile, where the engine would look at the clock: so they look sooner themselves.

/// A chain of calls that is not long: what its functions do behind them takes 1 ms at most, or 2 ms
/// where each access is to two new pages.
const CHAIN_MAX: usize = 100;

/// Who calls whom, of the functions that a module defines.
#[derive(Default)]
pub struct CallGraph {
    /// What each function calls: the indices of functions, without those of imports.
    pub calls: Vec<Vec<u32>>,
    /// Which of them call through a table.
    pub is_indirect: Vec<bool>,
    /// Functions that can be called that way.
    pub targets: Vec<u32>,
}

/// What is known of a function while the graph is walked (Tarjan's algorithm, 1972).
#[derive(Clone, Copy)]
struct TarjanNode {
    tarjan_index: u32,
    low_link: u32,
    is_on_stack: bool,
}

impl CallGraph {
    /// Which functions can be deep inside of each other.
    pub fn deep(&self) -> Vec<bool> {
        let mut walk = Tarjan {
            graph: self,
            seen: vec![None; self.calls.len() + 1],
            open: Vec::new(),
            chains: vec![0; self.calls.len() + 1],
            deep: vec![false; self.calls.len() + 1],
            count: 0,
        };
        for function in 0..=self.calls.len() as u32 {
            if walk.seen[function as usize].is_none() {
                walk.go(function);
            }
        }
        let Tarjan { chains, mut deep, .. } = walk;
        if chains.into_iter().max().is_some_and(|longest| longest > CHAIN_MAX) {
            deep.fill(true);
        }
        deep.truncate(self.calls.len());
        deep
    }

    /// The table stands behind the functions: it is called, and calls what it may have.
    fn table(&self) -> u32 {
        self.calls.len() as u32
    }

    /// Callee number `index` of a function.
    fn callee(&self, function: u32, index: usize) -> Option<u32> {
        let Some(calls) = self.calls.get(function as usize) else {
            return self.targets.get(index).copied();
        };
        match calls.get(index) {
            Some(callee) => Some(*callee),
            None => {
                (index == calls.len() && self.is_indirect[function as usize]).then(|| self.table())
            }
        }
    }
}

struct Tarjan<'a> {
    graph: &'a CallGraph,
    seen: Vec<Option<TarjanNode>>,
    /// Functions whose part of the graph is not known yet.
    open: Vec<u32>,
    /// The longest chain of calls that begins with each function.
    chains: Vec<usize>,
    deep: Vec<bool>,
    /// How many have been seen.
    count: u32,
}

impl Tarjan<'_> {
    fn go(&mut self, first: u32) {
        let mut path = vec![(first, 0)];
        while let Some((function, index)) = path.last_mut() {
            let function = *function;
            if *index == 0 && self.seen[function as usize].is_none() {
                let number = self.count;
                self.seen[function as usize] =
                    Some(TarjanNode { tarjan_index: number, low_link: number, is_on_stack: true });
                self.open.push(function);
                self.count += 1;
            }
            let callee = self.graph.callee(function, *index);
            *index += 1;
            match callee {
                Some(callee) => match self.seen[callee as usize] {
                    None => path.push((callee, 0)),
                    Some(known) if known.is_on_stack => self.lower(function, known.tarjan_index),
                    Some(_) => {}
                },
                None => {
                    path.pop();
                    let lowest = self.close(function);
                    if let Some((caller, _)) = path.last() {
                        self.lower(*caller, lowest);
                    }
                }
            }
        }
    }

    fn lower(&mut self, function: u32, to: u32) {
        if let Some(seen) = &mut self.seen[function as usize] {
            seen.low_link = seen.low_link.min(to);
        }
    }

    /// Everything that a function calls is known. If no function before it is reached from there,
    /// those that are open since call each other.
    fn close(&mut self, function: u32) -> u32 {
        let Some(seen) = self.seen[function as usize] else { return u32::MAX };
        if seen.low_link < seen.tarjan_index {
            return seen.low_link;
        }
        let at = self.open.iter().rposition(|open| *open == function).unwrap_or(0);
        let group = self.open.split_off(at);
        let graph = self.graph;
        let callees = |function: u32| (0..).map_while(move |at| graph.callee(function, at));
        let is_recursion = group.len() > 1 || callees(function).any(|callee| callee == function);
        let behind = group.iter().flat_map(|it| callees(*it)).map(|it| self.chains[it as usize]);
        let chain = group.len() + behind.max().unwrap_or(0);
        for function in group {
            self.chains[function as usize] = chain;
            self.deep[function as usize] = is_recursion;
            if let Some(seen) = &mut self.seen[function as usize] {
                seen.is_on_stack = false;
            }
        }
        u32::MAX
    }
}
