//! quick
use cronclave_sim::model_telling;
use cronclave_sim::plan::{Plan, generate};
use cronclave_sim::run::{Look, World, run};
#[global_allocator]
static A: mimalloc::MiMalloc = mimalloc::MiMalloc;
fn main() {
    let args: Vec<String> = std::env::args().collect();
    let first: u64 = args[1].parse().unwrap_or(0);
    let plans: Vec<Plan> = if args[1].parse::<u64>().is_ok() {
        let n: u64 = args.get(2).map_or(1, |t| t.parse().unwrap());
        (first..first + n).map(generate).collect()
    } else {
        vec![std::fs::read_to_string(&args[1]).unwrap().parse().unwrap()]
    };
    let told = std::env::var("TELL").ok();
    let mut sim_s = 0.0;
    let t0 = std::time::Instant::now();
    for plan in plans {
        if told.is_some() {
            println!("{plan}");
        }
        let t = std::time::Instant::now();
        let look = Look { telling: model_telling(told.as_deref()), traced: false };
        let report = run(
            &plan,
            if std::env::var("MADSIM").is_ok() { World::Madsim } else { World::Heap },
            look,
        );
        let real = t.elapsed().as_secs_f64();
        sim_s += report.simulated.as_secs_f64();
        for m in &report.story.moments {
            println!("{} {:?} {:?}", m.at, m.host.map(|h| h + 1), m.what);
        }
        println!(
            "seed {} n={} a={} sim {:.1}s real {:.2}s = {:.0}x hash {:x} {:?} {}",
            plan.options.seed,
            plan.options.servers,
            plan.options.agents,
            report.simulated.as_secs_f64(),
            real,
            report.simulated.as_secs_f64() / real,
            report.hash,
            report.counts,
            report.violation().map_or("ok".to_owned(), |v| format!(
                "VIOLATED {} at {:?}: {}",
                v.checker, v.at, v.text
            ))
        );
    }
    println!(
        "total {:.0} sim s in {:.1} s: {:.0}x",
        sim_s,
        t0.elapsed().as_secs_f64(),
        sim_s / t0.elapsed().as_secs_f64()
    );
}
