//! Three origins in simulated time: one says that it has everything and sends
//! nothing, one sends what nobody asked for, one serves and loses streams.

use super::*;

/// Blocks that are fetched, of which the good origin sends one a step.
const BLOCKS: usize = 4_000;

/// Blocks that are wanted once those before are there: what is lost holds up
/// everything.
const BATCH: usize = 64;

/// One step of the simulation.
const STEP: Duration = Duration::from_millis(1);

/// Of so many messages that reach the good origin while it is idle, one meets
/// the end of its stream and is not read.
const LOST: usize = 4;

/// An origin that takes wants in order and sends a block a step.
#[derive(Default)]
struct Good {
    queue: VecDeque<Cid>,
    resets: bool,
    woken: usize,
}

impl Good {
    fn step(&mut self, world: &mut World, peer: usize, numbers: &HashMap<Cid, usize>) {
        let sent = world.sent(peer);
        self.woken += usize::from(self.queue.is_empty() && !sent.is_empty());
        if self.resets && self.queue.is_empty() && self.woken.is_multiple_of(LOST) && !sent.is_empty() {
            world.client.wantlist_lost(&world.peer(peer), false, world.now);
        } else {
            for sent in sent {
                match sent {
                    Sent::Block(cid) => self.queue.push_back(cid),
                    Sent::Have(cid) => world.tell(peer, numbers[&cid], true),
                    Sent::Cancel(cid) => self.queue.retain(|queued| *queued != cid),
                }
            }
        }
        if let Some(cid) = self.queue.pop_front() {
            world.deliver(peer, [numbers[&cid]]);
        }
    }
}

fn stall(world: &mut World, peer: usize, numbers: &HashMap<Cid, usize>) {
    for sent in world.sent(peer) {
        if let Sent::Block(cid) | Sent::Have(cid) = sent {
            world.tell(peer, numbers[&cid], true);
        }
    }
}

fn lie(world: &mut World, peer: usize, numbers: &HashMap<Cid, usize>) {
    for sent in world.sent(peer) {
        match sent {
            Sent::Block(_) => world.deliver(peer, [BLOCKS + 1]),
            Sent::Have(cid) => world.tell(peer, numbers[&cid], true),
            Sent::Cancel(_) => {}
        }
    }
}

/// Steps until everything is there. The last peer is the good one.
fn steps(peers: usize) -> usize {
    let mut world = World::new(peers);
    let numbers: HashMap<Cid, usize> = (0..BLOCKS).map(|number| (cid(number), number)).collect();
    let mut good = Good { resets: peers > 1, ..Good::default() };
    let (mut wanted, mut came) = (0, 0);
    for number in 1..100 * BLOCKS {
        if came == wanted {
            world.want(wanted..(wanted + BATCH).min(BLOCKS));
            wanted += BATCH;
        }
        if peers > 1 {
            stall(&mut world, 0, &numbers);
            lie(&mut world, 1, &numbers);
        }
        good.step(&mut world, peers - 1, &numbers);
        came += world.blocks().len();
        if came == BLOCKS {
            return number;
        }
        world.pass(STEP);
    }
    panic!("{came} of {BLOCKS} blocks came");
}

#[test]
fn three_of_which_one_is_good_are_nearly_as_fast_as_the_good_one_alone() {
    let (alone, three) = (steps(1), steps(3));
    assert!(10 * alone >= 7 * three, "{three} steps instead of {alone}");
}
