//! The server's engine: orders in, pictures out, whatever else goes on.

mod emoji;
mod engine;

use std::sync::Arc;
use std::time::{Duration, Instant};

use hydit::Request;
use hydit::cache::refreshed;
use hydit::image::Image;
use hydit::runtime::BackendChoice;
use hydit::sampler::SamplerKind;
use hydit_serve::server::engine::{Engine, Event, Failure, Order, Refusal};
use hydit_serve::server::settings::Settings;
use tempfile::TempDir;

use engine::{cat, end, order, rest, settings, start};

/// Requests of two sizes, several samplers, policies and lengths.
fn mixed(engine: &Engine) -> Vec<Request> {
    let cat = cat(engine, 6);
    let policy = |text: &str| text.parse().expect("a policy");
    let one = |i: u64| Request { seed: i, prompt: format!("a red apple {i}"), ..cat.clone() };
    vec![
        Request { cache: policy("N2-1000-0"), ..one(0) },
        Request { cache: policy("N3-1000-0+taylor1"), steps: 8, ..one(1) },
        Request { batch_size: 2, sampler: SamplerKind::Dpmms, ..one(2) },
        Request { width: 192, steps: 4, ..one(3) },
        Request { cache: policy("probe:0.3"), ..one(4) },
        Request { guidance_scale: 1.0, sampler: SamplerKind::Ddim, ..one(5) },
        Request { width: 192, height: 96, cache: policy("N2"), ..one(6) },
        one(7),
    ]
}

fn solo(artifacts: &TempDir, requests: &[Request]) -> Vec<Vec<Image>> {
    let mut pipeline = emoji::pipeline(artifacts, BackendChoice::Ort);
    let mut draw = |request| pipeline.generate(request, &mut emoji::ignore).expect("it draws");
    requests.iter().map(|request| draw(request).images).collect()
}

async fn draw_all(engine: &Arc<Engine>, requests: &[Request]) -> Vec<Vec<Image>> {
    let submit = |(i, request): (usize, &Request)| {
        engine.submit(order(&i.to_string(), request)).expect("there is room")
    };
    let mut tickets: Vec<_> = requests.iter().enumerate().map(submit).collect();
    let mut pictures = Vec::new();
    for ticket in &mut tickets {
        pictures.push(end(ticket).await.0.expect("a picture").images);
    }
    pictures
}

fn farthest(a: &Image, b: &Image) -> u8 {
    assert_eq!((a.width, a.height), (b.width, b.height));
    a.rgb.iter().zip(&b.rgb).map(|(a, b)| a.abs_diff(*b)).max().expect("pixels")
}

#[tokio::test]
async fn pictures_are_those_of_solo_runs() {
    let artifacts = emoji::artifacts(1);
    for workers in [1, 2] {
        let engine = start(&Settings { workers, ..settings(&artifacts) }).await;
        let requests = mixed(&engine);
        let together = draw_all(&engine, &requests).await;
        for (i, (a, b)) in solo(&artifacts, &requests).iter().zip(&together).enumerate() {
            assert_eq!(a.len(), b.len());
            for (a, b) in a.iter().zip(b) {
                assert!(farthest(a, b) <= 1, "request {i}, {workers} workers");
            }
        }
    }
}

#[tokio::test]
async fn exact_pictures_have_the_bits_of_solo_runs() {
    let artifacts = emoji::artifacts(1);
    for workers in [1, 2] {
        let engine = start(&Settings { workers, exact: true, ..settings(&artifacts) }).await;
        let requests = mixed(&engine);
        let together = draw_all(&engine, &requests).await;
        assert!(solo(&artifacts, &requests) == together, "{workers} workers");
    }
}

#[tokio::test]
async fn of_two_that_are_drawn_together_one_is_cancelled_and_the_other_goes_on() {
    let artifacts = emoji::artifacts(1);
    let engine = start(&settings(&artifacts)).await;
    let long = cat(&engine, 100);
    let mut stays = engine.submit(order("stays", &long)).expect("room");
    let mut goes =
        engine.submit(order("goes", &Request { seed: 1, ..long.clone() })).expect("room");
    let mut seen = 0;
    while seen < 5 {
        if let Event::Step(step) = goes.next().await.expect("an event") {
            seen = step.index + 1;
        }
    }
    engine.cancel("goes");
    let (failed, _) = rest(&mut goes).await;
    assert_eq!(failed, Err(Failure::Cancelled));
    assert!(goes.next().await.is_none(), "nothing comes after the end");
    let (drawn, steps) = end(&mut stays).await;
    assert_eq!(steps, 100);
    let drawn = drawn.expect("a picture");
    assert!(farthest(&drawn.images[0], &solo(&artifacts, &[long])[0][0]) <= 1);
}

/// An order whose thread's end or whose neighbours' failure made it try again.
#[tokio::test]
async fn an_order_that_wants_to_be_alone_is_drawn_beside_nobody() {
    let artifacts = emoji::artifacts(1);
    let engine = start(&settings(&artifacts)).await;
    let request = cat(&engine, 8);
    let long = cat(&engine, 60);
    let mut first = engine.submit(order("first", &long)).expect("room");
    let alone = Order { alone: true, ..order("alone", &request) };
    let mut alone = engine.submit(alone).expect("room");
    let mut third = engine.submit(order("third", &request)).expect("room");
    assert!(matches!(alone.next().await, Some(Event::Started)));
    end(&mut first).await.0.expect("it was done before the one alone began");
    assert_eq!(engine.position("third"), Some(0), "nobody joins it either");
    let drawn = rest(&mut alone).await.0.expect("drawn");
    assert!(drawn.images == solo(&artifacts, std::slice::from_ref(&request))[0], "the same bits");
    end(&mut third).await.0.expect("drawn");
}

#[tokio::test]
async fn a_ticket_that_is_dropped_frees_the_worker() {
    let artifacts = emoji::artifacts(1);
    let engine = start(&Settings { exact: true, ..settings(&artifacts) }).await;
    let long = Request { width: 512, height: 512, ..cat(&engine, 100) };
    let mut running = engine.submit(order("running", &long)).expect("room");
    assert!(matches!(running.next().await, Some(Event::Started)));
    let queued = engine.submit(order("queued", &long)).expect("room");
    let mut short = engine.submit(order("short", &cat(&engine, 2))).expect("room");
    assert_eq!([engine.position("queued"), engine.position("short")], [Some(0), Some(1)]);
    let start = Instant::now();
    drop(queued);
    assert_eq!(engine.position("short"), Some(0));
    drop(running);
    end(&mut short).await.0.expect("a picture");
    assert!(start.elapsed() < Duration::from_secs(60), "{:?}", start.elapsed());
}

#[tokio::test]
async fn a_full_queue_refuses_with_a_time_to_come_back() {
    let artifacts = emoji::artifacts(1);
    let bounds = Settings { queue: 3, queue_per_key: 2, exact: true, ..settings(&artifacts) };
    let engine = start(&bounds).await;
    let long = Request { width: 512, height: 512, ..cat(&engine, 100) };
    let mut running = engine.submit(order("running", &long)).expect("room");
    assert!(matches!(running.next().await, Some(Event::Started)));
    let of = |client: &str, id: &str| Order { client: client.into(), ..order(id, &long) };
    let a1 = engine.submit(of("a", "a1")).expect("room");
    let _a2 = engine.submit(of("a", "a2")).expect("room");
    let refused = engine.submit(of("a", "a3")).err();
    assert!(matches!(refused, Some(Refusal::Share { waiting: 2, .. })), "{refused:?}");
    let _b1 = engine.submit(of("b", "b1")).expect("room");
    match engine.submit(of("b", "b2")).err() {
        Some(Refusal::Full { waiting: 3, retry_after }) => {
            assert!(retry_after >= Duration::from_secs(1));
        }
        other => panic!("{other:?}"),
    }
    let _kept = engine.resubmit(of("b", "b3")).expect("a job of before is never refused");
    // Turn by turn: a1, b1, a2, b3.
    let place = |id| engine.position(id);
    assert_eq!([place("a1"), place("b1"), place("a2"), place("b3")], [0, 1, 2, 3].map(Some));
    drop(a1);
    let unknown = Order { model: "none".to_string(), ..order("x", &long) };
    let refused = engine.submit(unknown).err().expect("a refusal").to_string();
    assert_eq!(refused, "there is no model \"none\"; there is emoji");
}

#[tokio::test]
async fn an_order_that_waits_too_long_is_told_at_its_deadline() {
    let artifacts = emoji::artifacts(1);
    let engine = start(&Settings { exact: true, ..settings(&artifacts) }).await;
    let long = Request { width: 512, height: 512, ..cat(&engine, 100) };
    let late = |id| {
        let deadline = Some(Instant::now() + Duration::from_millis(300));
        Order { deadline, ..order(id, &long) }
    };
    let start = Instant::now();
    let mut running = engine.submit(late("running")).expect("room");
    let mut waiting = engine.submit(late("waiting")).expect("room");
    assert_eq!(end(&mut waiting).await, (Err(Failure::Expired), 0));
    assert!(matches!(end(&mut running).await, (Err(Failure::Expired), _)));
    assert!(start.elapsed() < Duration::from_secs(20), "{:?}", start.elapsed());
    end(&mut engine.submit(order("next", &cat(&engine, 2))).expect("room")).await.0.expect("drawn");
}

#[tokio::test]
async fn draining_finishes_what_runs_and_gives_back_what_waits() {
    let artifacts = emoji::artifacts(1);
    let engine = start(&Settings { exact: true, ..settings(&artifacts) }).await;
    let request = cat(&engine, 20);
    let mut running = engine.submit(order("running", &request)).expect("room");
    assert!(matches!(running.next().await, Some(Event::Started)));
    let mut waiting = engine.submit(order("waiting", &request)).expect("room");
    engine.drain();
    assert_eq!(end(&mut waiting).await, (Err(Failure::Draining), 0));
    let refused = engine.submit(order("late", &request)).err();
    assert!(matches!(refused, Some(Refusal::Unready { .. })), "{refused:?}");
    assert_eq!(engine.ready(), Err("the server is shutting down"));
    end(&mut running).await.0.expect("what runs is finished");
    engine.idle().await;
}

#[tokio::test]
async fn previews_and_partial_pictures_come_near_the_picture() {
    let artifacts = emoji::artifacts(1);
    let engine = start(&settings(&artifacts)).await;
    let request = Request {
        sampler: SamplerKind::Dpmms,
        width: 192,
        batch_size: 2,
        cache: "N2".parse().expect("a policy"),
        ..cat(&engine, 12)
    };
    let order = Order { preview_every: Some(5), partials: 2, ..order("seen", &request) };
    let mut ticket = engine.submit(order).expect("room");
    let (mut previews, mut partials, mut last) = (Vec::new(), Vec::new(), None);
    while let Some(event) = ticket.next().await {
        match event {
            Event::Preview { steps, images } => previews.push((steps, images)),
            Event::Partial { index, image } => partials.push((index, image)),
            Event::Done(drawn) => last = Some(drawn),
            Event::Failed(failure) => panic!("{failure}"),
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
    let artifacts = emoji::artifacts(1);
    let engine = start(&settings(&artifacts)).await;
    let short = cat(&engine, 2);
    let long = Request { prompt: "猫 ".repeat(300), ..short.clone() };
    for (request, expected) in [(short, vec![]), (long, vec!["prompt"])] {
        let mut ticket = engine.submit(order("text", &request)).expect("room");
        assert_eq!(end(&mut ticket).await.0.expect("drawn").truncated, expected);
    }
}

#[tokio::test]
async fn models_share_the_memory_that_they_may_have() {
    let artifacts = emoji::artifacts(1);
    let one = settings(&artifacts);
    let path = artifacts.path().to_path_buf();
    let models = ["a", "b", "c"].map(|name| (name.to_string(), path.clone())).to_vec();
    let manifest = hydit::artifacts::Artifacts::open(&path).expect("an export").manifest;
    let bytes: u64 = manifest.files.values().map(|file| file.bytes).sum();
    let engine = start(&Settings { models, max_memory: Some(2 * bytes), ..one }).await;
    let request = cat(&engine, 2);
    let loaded = || ["a", "b", "c"].map(|name| engine.is_loaded(name));
    assert_eq!(loaded(), [true, true, false], "the first two fit");
    for (name, after) in [
        ("c", [false, true, true]),
        ("b", [false, true, true]),
        ("a", [true, true, false]),
        ("c", [true, false, true]),
    ] {
        let order = Order { model: name.to_string(), ..order(name, &request) };
        end(&mut engine.submit(order).expect("room")).await.0.expect("drawn");
        assert_eq!(loaded(), after, "after {name}");
    }
}
