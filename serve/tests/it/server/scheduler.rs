//! The server's scheduler: tasks in, pictures out, whatever else goes on.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use hydit::Request;
use hydit::cache::refreshed;
use hydit::image::Image;
use hydit::runtime::BackendChoice;
use hydit::sampler::SamplerKind;
use hydit_serve::server::scheduler::{Failure, Refusal, Scheduler, Task, TaskEvent};
use hydit_serve::server::settings::Settings;
use hydit_testing::emoji;

use super::in_process::{TestClock, cat, end, rest, settings, start, start_by, task, with_faults};

/// Requests of two sizes, several samplers, policies and lengths.
fn mixed(scheduler: &Scheduler) -> Vec<Request> {
    let cat = cat(scheduler, 6);
    let policy = |text: &str| text.parse().expect("a policy");
    let one = |i: u64| Request { seed: i, prompt: format!("a red apple {i}"), ..cat.clone() };
    vec![
        Request { cache_policy: policy("N2-1000-0"), ..one(0) },
        Request { cache_policy: policy("N3-1000-0+taylor1"), steps: 8, ..one(1) },
        Request { num_images: 2, sampler: SamplerKind::Dpmms, ..one(2) },
        Request { width: 192, steps: 4, ..one(3) },
        Request { cache_policy: policy("probe:0.3"), ..one(4) },
        Request { guidance_scale: 1.0, sampler: SamplerKind::Ddim, ..one(5) },
        Request { width: 192, height: 96, cache_policy: policy("N2"), ..one(6) },
        one(7),
    ]
}

fn solo(requests: &[Request]) -> Vec<Vec<Image>> {
    let mut pipeline = emoji::pipeline(&emoji::artifacts(), BackendChoice::Ort);
    let mut draw = |request| {
        pipeline
            .generate(&emoji::checked(&pipeline, request), &mut emoji::ignore)
            .expect("it draws")
    };
    requests.iter().map(|request| draw(request).images).collect()
}

async fn draw_all(scheduler: &Arc<Scheduler>, requests: &[Request]) -> Vec<Vec<Image>> {
    let submit = |(i, request): (usize, &Request)| {
        scheduler.submit(task(&i.to_string(), request)).expect("there is room")
    };
    let mut handles: Vec<_> = requests.iter().enumerate().map(submit).collect();
    let mut pictures = Vec::new();
    for handle in &mut handles {
        pictures.push(end(handle).await.0.expect("a picture").images);
    }
    pictures
}

fn farthest(a: &Image, b: &Image) -> u8 {
    assert_eq!((a.width, a.height), (b.width, b.height));
    a.rgb.iter().zip(&b.rgb).map(|(a, b)| a.abs_diff(*b)).max().expect("pixels")
}

#[tokio::test]
async fn pictures_are_those_of_solo_runs() {
    for workers in [1, 2] {
        let scheduler = start(&Settings { workers, ..settings() }).await;
        let requests = mixed(&scheduler);
        let together = draw_all(&scheduler, &requests).await;
        for (i, (a, b)) in solo(&requests).iter().zip(&together).enumerate() {
            assert_eq!(a.len(), b.len());
            for (a, b) in a.iter().zip(b) {
                assert!(farthest(a, b) <= 1, "request {i}, {workers} workers");
            }
        }
    }
}

#[tokio::test]
async fn exact_pictures_have_the_bits_of_solo_runs() {
    for workers in [1, 2] {
        let scheduler = start(&Settings { workers, exact: true, ..settings() }).await;
        let requests = mixed(&scheduler);
        let together = draw_all(&scheduler, &requests).await;
        assert!(solo(&requests) == together, "{workers} workers");
    }
}

#[tokio::test]
async fn of_two_that_are_drawn_together_one_is_cancelled_and_the_other_goes_on() {
    let scheduler = start(&settings()).await;
    let long = cat(&scheduler, 100);
    let mut stays = scheduler.submit(task("stays", &long)).expect("room");
    let mut goes =
        scheduler.submit(task("goes", &Request { seed: 1, ..long.clone() })).expect("room");
    let mut seen = 0;
    while seen < 5 {
        if let TaskEvent::Step { step, .. } = goes.next().await.expect("an event") {
            seen = step.index + 1;
        }
    }
    scheduler.cancel("goes");
    let (failed, _) = rest(&mut goes).await;
    assert_eq!(failed, Err(Failure::Cancelled));
    assert!(goes.next().await.is_none(), "nothing comes after the end");
    let (drawn, steps) = end(&mut stays).await;
    assert_eq!(steps, 100);
    let drawn = drawn.expect("a picture");
    assert!(farthest(&drawn.images[0], &solo(&[long])[0][0]) <= 1);
}

/// An task whose thread's end or whose neighbours' failure made it try again.
#[tokio::test]
async fn an_order_that_wants_to_be_alone_is_drawn_beside_nobody() {
    let scheduler = start(&settings()).await;
    let request = cat(&scheduler, 8);
    let long = cat(&scheduler, 60);
    let mut first = scheduler.submit(task("first", &long)).expect("room");
    let alone = Task { no_batching: true, ..task("alone", &request) };
    let mut alone = scheduler.submit(alone).expect("room");
    let mut third = scheduler.submit(task("third", &request)).expect("room");
    assert!(matches!(alone.next().await, Some(TaskEvent::Started)));
    end(&mut first).await.0.expect("it was done before the one alone began");
    assert_eq!(scheduler.position("third"), Some(0), "nobody joins it either");
    let drawn = rest(&mut alone).await.0.expect("drawn");
    assert!(drawn.images == solo(std::slice::from_ref(&request))[0], "the same bits");
    end(&mut third).await.0.expect("drawn");
}

#[test]
fn a_ticket_that_is_dropped_frees_the_worker() {
    with_faults(async {
        let scheduler = start(&Settings { exact: true, ..settings() }).await;
        let steps = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&steps);
        fail::cfg_callback("core", move || {
            count.fetch_add(1, Relaxed);
        })
        .expect("a count");
        let long = Request { width: 512, height: 512, ..cat(&scheduler, 100) };
        let mut running = scheduler.submit(task("running", &long)).expect("room");
        assert!(matches!(running.next().await, Some(TaskEvent::Started)));
        let queued = scheduler.submit(task("queued", &long)).expect("room");
        let mut short = scheduler.submit(task("short", &cat(&scheduler, 2))).expect("room");
        assert_eq!([scheduler.position("queued"), scheduler.position("short")], [Some(0), Some(1)]);
        drop(queued);
        assert_eq!(scheduler.position("short"), Some(0));
        drop(running);
        let before = steps.load(Relaxed);
        end(&mut short).await.0.expect("a picture");
        let after = steps.load(Relaxed) - before;
        assert!(after <= 1 + 2, "{after}: one that ran, and the two of the picture");
    });
}

#[tokio::test]
async fn a_full_queue_refuses_with_a_time_to_come_back() {
    let bounds = Settings { queue: 3, queue_per_key: 2, exact: true, ..settings() };
    let scheduler = start(&bounds).await;
    let long = Request { width: 512, height: 512, ..cat(&scheduler, 100) };
    let mut running = scheduler.submit(task("running", &long)).expect("room");
    assert!(matches!(running.next().await, Some(TaskEvent::Started)));
    let of = |client: &str, id: &str| Task { client: client.into(), ..task(id, &long) };
    let a1 = scheduler.submit(of("a", "a1")).expect("room");
    let _a2 = scheduler.submit(of("a", "a2")).expect("room");
    let refused = scheduler.submit(of("a", "a3")).err();
    assert!(matches!(refused, Some(Refusal::Share { waiting: 2, .. })), "{refused:?}");
    let _b1 = scheduler.submit(of("b", "b1")).expect("room");
    match scheduler.submit(of("b", "b2")).err() {
        Some(Refusal::Full { waiting: 3, retry_after }) => {
            assert!(retry_after >= Duration::from_secs(1));
        }
        other => panic!("{other:?}"),
    }
    let _kept = scheduler.resubmit(of("b", "b3")).expect("a job of before is never refused");
    // Turn by turn: a1, b1, a2, b3.
    let place = |id| scheduler.position(id);
    assert_eq!([place("a1"), place("b1"), place("a2"), place("b3")], [0, 1, 2, 3].map(Some));
    drop(a1);
    let unknown = Task { model: "none".to_string(), ..task("x", &long) };
    let refused = scheduler.submit(unknown).err().expect("a refusal").to_string();
    let told = "there is no model \"none\"; there is emoji; the server's --model-alias NAME=MODEL \
                adds names";
    assert_eq!(refused, told);
}

#[tokio::test]
async fn an_order_that_waits_too_long_is_told_at_its_deadline() {
    let time = TestClock::new();
    let scheduler = start_by(&Settings { exact: true, ..settings() }, time.clock()).await;
    let long = Request { width: 512, height: 512, ..cat(&scheduler, 100) };
    let hour = Duration::from_secs(3600);
    let late = |id| {
        let deadline = Some(scheduler.clock().now().instant + hour);
        Task { deadline, ..task(id, &long) }
    };
    let mut running = scheduler.submit(late("running")).expect("room");
    let mut waiting = scheduler.submit(late("waiting")).expect("room");
    assert!(matches!(running.next().await, Some(TaskEvent::Started)));
    time.pass(hour);
    assert_eq!(end(&mut waiting).await, (Err(Failure::Expired), 0));
    assert!(matches!(rest(&mut running).await, (Err(Failure::Expired), 0..100)));
    end(&mut scheduler.submit(task("next", &cat(&scheduler, 2))).expect("room"))
        .await
        .0
        .expect("drawn");
}

#[tokio::test]
async fn draining_finishes_what_runs_and_gives_back_what_waits() {
    let scheduler = start(&Settings { exact: true, ..settings() }).await;
    let request = cat(&scheduler, 20);
    let mut running = scheduler.submit(task("running", &request)).expect("room");
    assert!(matches!(running.next().await, Some(TaskEvent::Started)));
    let mut waiting = scheduler.submit(task("waiting", &request)).expect("room");
    scheduler.drain();
    assert_eq!(end(&mut waiting).await, (Err(Failure::Draining), 0));
    let refused = scheduler.submit(task("late", &request)).err();
    assert!(matches!(refused, Some(Refusal::Unready { .. })), "{refused:?}");
    assert_eq!(scheduler.ready(), Err("the server is shutting down"));
    end(&mut running).await.0.expect("what runs is finished");
    scheduler.idle().await;
}

#[tokio::test]
async fn previews_and_partial_pictures_come_near_the_picture() {
    let scheduler = start(&settings()).await;
    let request = Request {
        sampler: SamplerKind::Dpmms,
        width: 192,
        num_images: 2,
        cache_policy: "N2".parse().expect("a policy"),
        ..cat(&scheduler, 12)
    };
    let task = Task { preview_every: Some(5), partial_images: 2, ..task("seen", &request) };
    let mut handle = scheduler.submit(task).expect("room");
    let (mut previews, mut partials, mut last) = (Vec::new(), Vec::new(), None);
    while let Some(event) = handle.next().await {
        match event {
            TaskEvent::Preview { steps, images } => previews.push((steps, images)),
            TaskEvent::Partial { index, image } => partials.push((index, image)),
            TaskEvent::Done(drawn) => last = Some(drawn),
            TaskEvent::Failed(failure) => panic!("{failure}"),
            _ => {}
        }
    }
    let drawn = last.expect("pictures");
    assert_eq!(previews.iter().map(|(steps, _)| *steps).collect::<Vec<_>>(), [5, 10]);
    assert_eq!(partials.iter().map(|(index, _)| *index).collect::<Vec<_>>(), [0, 1]);
    let far = |a: &Image, b: &Image| {
        let far = a.rgb.iter().zip(&b.rgb).map(|(a, b)| f64::from(a.abs_diff(*b))).sum::<f64>();
        far / a.rgb.len() as f64
    };
    let way = [&partials[0].1, &partials[1].1].map(|image| far(image, &drawn.images[0]));
    assert!(way[1] < way[0] && way[1] < 30.0, "{way:?}");
    for (small, image) in previews[1].1.iter().zip(&drawn.images) {
        assert_eq!((small.width, small.height), (24, 16));
        let large = shrunk(image, 8);
        let grey = Image { rgb: vec![128; large.rgb.len()], ..large.clone() };
        let [seen, unseen] = [small, &grey].map(|small| far(small, &large));
        assert!(seen < 0.85 * unseen, "{seen}, and of plain grey {unseen}");
    }
    assert_eq!(drawn.plan.len(), 12);
    assert!(refreshed(&drawn.plan).len() < 12);
}

/// Every `factor`-th pixel.
fn shrunk(image: &Image, factor: usize) -> Image {
    let (width, height) = (image.width / factor, image.height / factor);
    let pixel = |i: usize| {
        let (x, y) = (i % width * factor + factor / 2, i / width * factor + factor / 2);
        image.rgb[3 * (y * image.width + x)..][..3].to_vec()
    };
    Image { width, height, rgb: (0..width * height).flat_map(pixel).collect() }
}

#[tokio::test]
async fn texts_longer_than_the_encoders_read_are_told() {
    let scheduler = start(&settings()).await;
    let short = cat(&scheduler, 2);
    let long = Request { prompt: "猫 ".repeat(300), ..short.clone() };
    for (request, expected) in [(short, vec![]), (long, vec!["prompt"])] {
        let mut handle = scheduler.submit(task("text", &request)).expect("room");
        assert_eq!(end(&mut handle).await.0.expect("drawn").truncated, expected);
    }
}

#[tokio::test]
async fn models_share_the_memory_that_they_may_have() {
    let one = settings();
    let path = emoji::artifacts();
    let models = ["a", "b", "c"].map(|name| (name.to_string(), path.clone())).to_vec();
    let manifest = hydit::artifacts::Artifacts::open(&path).expect("an export").manifest;
    let bytes: u64 = manifest.files.values().map(|file| file.bytes).sum();
    let scheduler = start(&Settings { models, max_memory: Some(2 * bytes), ..one }).await;
    let request = cat(&scheduler, 2);
    let loaded = || ["a", "b", "c"].map(|name| scheduler.is_loaded(name));
    assert_eq!(loaded(), [true, true, false], "the first two fit");
    for (name, after) in [
        ("c", [false, true, true]),
        ("b", [false, true, true]),
        ("a", [true, true, false]),
        ("c", [true, false, true]),
    ] {
        let task = Task { model: name.to_string(), ..task(name, &request) };
        end(&mut scheduler.submit(task).expect("room")).await.0.expect("drawn");
        assert_eq!(loaded(), after, "after {name}");
    }
}
