//! Finds the functions that can be on the stack in large numbers: those of a recursion, and all
//! functions if the longest chain of calls is long.
//!
//! Owns the call graph. When such a stack unwinds, function after function runs the code after its
//! call, and no function entry with an epoch check comes between. So less code may follow a call in
//! these functions until they check the epoch themselves.

/// The longest chain of calls that counts as short. The code that its functions run after their
/// calls takes 1 ms at most, or 2 ms if each access is the first to two pages.
const CHAIN_MAX: usize = 100;

/// The call graph of the functions that a module defines. Indices count these functions only.
#[derive(Default)]
pub struct CallGraph {
    /// For each function, the functions that it calls directly. Imports are left out.
    pub calls: Vec<Vec<u32>>,
    /// For each function, whether it calls through a table or a reference.
    pub is_indirect: Vec<bool>,
    /// The functions that can be called through a table or a reference.
    pub targets: Vec<u32>,
}

/// The state of a function in Tarjan's algorithm for strongly connected components (1972).
#[derive(Clone, Copy)]
struct TarjanNode {
    tarjan_index: u32,
    low_link: u32,
    is_on_stack: bool,
}

impl CallGraph {
    /// For each function, whether it can be part of a recursion or of a long chain of calls.
    pub fn deep(&self) -> Vec<bool> {
        let mut walk = Tarjan {
            graph: self,
            seen: vec![None; self.calls.len() + 1],
            stack: Vec::new(),
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

    /// All tables and references are one node after the functions. Indirect calls go to this node,
    /// and it calls every function that can be called indirectly.
    fn table(&self) -> u32 {
        self.calls.len() as u32
    }

    /// Callee number `index` of a function or of the table node.
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
    /// The stack of Tarjan's algorithm: functions whose component is not complete.
    stack: Vec<u32>,
    /// For each function, the length of the longest chain of calls that begins with it.
    chains: Vec<usize>,
    deep: Vec<bool>,
    /// The number of functions seen, which is the next index.
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
                self.stack.push(function);
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

    /// Ends the visit of a function, when all its callees have been visited. If it reaches no
    /// function that was seen before it, it completes a strongly connected component. Returns the
    /// low link for its caller.
    fn close(&mut self, function: u32) -> u32 {
        let Some(seen) = self.seen[function as usize] else { return u32::MAX };
        if seen.low_link < seen.tarjan_index {
            return seen.low_link;
        }
        let at = self.stack.iter().rposition(|on_stack| *on_stack == function).unwrap_or(0);
        let group = self.stack.split_off(at);
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
