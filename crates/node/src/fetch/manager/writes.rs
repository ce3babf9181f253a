//! What the manager notes on disk: what came up in one turn, together.

use pinfold_node_api::AllocationId;

use super::Context;
use crate::assignments::State as Noted;

/// A change on disk.
pub(super) enum Write {
    State(AllocationId, Noted),
    Settle(AllocationId),
    Compared(AllocationId, i64, bool),
    Remove(AllocationId),
}

/// Changes in the order in which they came up.
#[derive(Default)]
pub(super) struct Writes(Vec<Write>);

impl Writes {
    pub(super) fn push(&mut self, write: Write) {
        self.0.push(write);
    }

    /// Writes all of them, and tells whoever compares contents with the
    /// denylist of what is on disk now.
    pub(super) async fn carry_out(&mut self, context: &Context) {
        if self.0.is_empty() {
            return;
        }
        let (assignments, writes) = (context.assignments.clone(), std::mem::take(&mut self.0));
        let held = |write: &Write| match write {
            Write::State(id, Noted::Held) => Some((id.content, false)),
            Write::Compared(id, ..) => Some((id.content, true)),
            _ => None,
        };
        let compare: Vec<(i64, bool)> = writes.iter().filter_map(held).collect();
        let written = context.workers.run(move || {
            writes.into_iter().try_for_each(|write| match write {
                Write::State(id, state) => assignments.set_state(id, state),
                Write::Settle(id) => assignments.settle(id),
                Write::Compared(id, denylist, denied) => assignments.set_compared(id, denylist, denied),
                Write::Remove(id) => assignments.remove(id),
            })
        });
        if let Err(error) = written.await {
            // What was not written is derived again after the next start.
            tracing::error!(%error, "cannot note what became of an assignment");
        }
        for (content, noted) in compare {
            if noted {
                context.compare.noted(content);
            } else {
                context.compare.stored(content);
            }
        }
    }
}
