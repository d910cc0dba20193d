//! How much reading allocates.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use hydit_pickle::{Error, read};

use crate::build::{file, global, one, op, pickle, tensor, text};

/// What reading may allocate, whatever the file says.
pub const BOUND: isize = 64 << 20;

thread_local! {
    static LIVE: Cell<isize> = const { Cell::new(0) };
    static PEAK: Cell<isize> = const { Cell::new(0) };
}

struct Counting;

#[global_allocator]
static COUNTING: Counting = Counting;

// SAFETY: the system's allocator does all the work; the counters are plain numbers of each thread.
#[expect(unsafe_code, reason = "an allocator is unsafe to implement")]
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as isize);
        // SAFETY: passed on as it came.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        count(-(layout.size() as isize));
        // SAFETY: passed on as it came.
        unsafe { System.dealloc(pointer, layout) }
    }
}

fn count(bytes: isize) {
    let live = LIVE.get() + bytes;
    LIVE.set(live);
    PEAK.set(PEAK.get().max(live));
}

/// The result of a call, and the most that it had allocated at any time.
pub fn measured<T>(call: impl FnOnce() -> T) -> (T, isize) {
    let before = LIVE.get();
    PEAK.set(before);
    let result = call();
    (result, PEAK.get() - before)
}

/// `count` times the instructions `body`.
fn many(count: usize, body: &[u8]) -> Vec<u8> {
    body.repeat(count)
}

#[test]
fn files_that_want_much_memory_are_refused_within_the_bound() {
    let list = |body: Vec<u8>| file(&pickle(&op(&[b"](", &body, b"e"])));
    let tensor = tensor("0", 0, &[6], &[1]);
    // Each list has the one before ten times.
    let mut laughs = op(&[b"]q\x00"]);
    for level in 1..12_u8 {
        laughs.extend(op(&[b"](", &many(10, &[b'h', level - 1]), b"eq", &[level]]));
    }
    let laughs = file(&pickle(&[b"(".to_vec(), laughs, b"t".to_vec()].concat()));
    // One dictionary of a thousand entries, a thousand times.
    let entries: Vec<u8> =
        (0..1000).flat_map(|key| op(&[&text(&format!("{key}")), b"N"])).collect();
    let dict = op(&[b"}q\x00(", &entries, b"u0"]);
    let dict = dict[..dict.len() - 1].to_vec();
    let dicts = list(op(&[&dict, &many(2000, b"h\x00")]));
    // Lists that are filled thousand by thousand.
    let filled = list(op(&[b"]", &many(9000, &op(&[b"(", &many(1000, b"N"), b"e"]))]));
    let got = list(op(&[b"Nq\x00]", &many(5500, &op(&[b"(", &many(1000, b"h\x00"), b"e"]))]));
    let views = op(&[&tensor, b"q\x00]", &many(300, &op(&[b"(", &many(1000, b"h\x00"), b"e"]))]);
    let sets = op(&[
        b"]q\x00(",
        &many(60_000, b"N"),
        b"e",
        &global("builtins", "set"),
        b"q\x01]",
        &many(5000, b"h\x01h\x00\x85Ra"),
    ]);
    for (what, file) in [
        ("lists", list(many(60_000, b"]"))),
        ("lists one after another", list(op(&[b"]", &many(2_000_000, b"]a")]))),
        ("laughs", laughs),
        ("dictionaries", dicts),
        ("Nones", filled),
        ("one None", got),
        ("sets", file(&pickle(&op(&[b"(", &sets, b"t"])))),
        ("memos", list(op(&[b"]", &many(600_000, b"N\x94a")]))),
        ("one tensor", file(&pickle(&op(&[b"(", &views, b"t"])))),
        ("tensors", file(&one(&op(&[b"]", &many(60_000, &op(&[&tensor, b"a"]))])))),
        ("texts", list(op(&[b"]", &many(700_000, &op(&[&text("some text"), b"a"]))]))),
    ] {
        let (result, peak) = measured(|| {
            let value = read(&file)?;
            value.tensors()?;
            Ok::<_, Error>(())
        });
        assert!(peak <= BOUND, "{what}: {peak} bytes were allocated");
        println!("{what}: {} bytes, {peak} allocated, {result:?}", file.len());
        let memory = matches!(result, Err(Error::Memory));
        assert!(memory || what == "lists", "{what}: {result:?}");
    }
}

#[test]
fn a_file_of_ten_thousand_tensors_is_read() {
    let tensors: Vec<u8> = (0..10_000)
        .flat_map(|layer| {
            let name = format!("blocks.{layer}.attention.query.weight");
            op(&[&text(&name), &tensor("0", 0, &[2, 3], &[3, 1])])
        })
        .collect();
    let body: Vec<u8> = op(&[b"}", &op(&[b"(", &tensors, b"u"])]);
    let file = file(&pickle(&body));
    let (count, peak) = measured(|| {
        let value = read(&file).expect("it is read");
        value.tensors().expect("names differ").len()
    });
    assert_eq!(count, 10_000);
    assert!(peak < BOUND / 2, "{peak} bytes were allocated");
}
