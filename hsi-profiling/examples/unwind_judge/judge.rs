//! The work, the handler that walks each sampled stack twice, and the count of differences.
#![allow(unsafe_code, reason = "a signal handler of its own, and libgcc's unwinder")]
#![allow(unreachable_pub, reason = "shared by an example and a test")]

use hsi_profiling::bench::Walker;
use std::{
    cell::UnsafeCell,
    collections::BTreeMap,
    ffi::c_void,
    fmt,
    hint::black_box,
    sync::{
        OnceLock,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

/// What came out.
#[derive(Debug, Default)]
pub struct Verdict {
    samples: u64,
    equal: u64,
    /// The sampled address lies in the loader's or kernel's own stubs, where libgcc gives up
    /// after the first frame and the walker goes on by the frame pointer, or the reverse.
    without_information: u64,
    depth: u64,
    examples: Vec<(Vec<u64>, Vec<u64>)>,
    differences: Vec<(Vec<u64>, Vec<u64>)>,
}

impl Verdict {
    /// Whether all samples were equal but for those of the named shape, at most one in thousand,
    /// and a few more that say nothing where samples are few.
    pub fn is_fair(&self) -> bool {
        const FEW: u64 = 4;
        self.samples >= 500
            && self.differences.is_empty()
            && self.without_information.saturating_sub(FEW) * 1000 <= self.samples
            && self.equal + self.without_information == self.samples
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} samples, mean depth {:.1}: {} equal to libgcc's, {} in code without unwind \
             information, {} different",
            self.samples,
            self.depth as f64 / self.samples.max(1) as f64,
            self.equal,
            self.without_information,
            self.differences.len()
        )?;
        for (ours, libgcc) in self.differences.iter().chain(&self.examples).take(5) {
            write!(f, "\nours   {ours:x?}\nlibgcc {libgcc:x?}")?;
        }
        Ok(())
    }
}

/// Works on several threads and in async tasks until there are so many samples, or that long.
pub fn run(samples: u64, most: Duration) -> Verdict {
    WALKER.get_or_init(Walker::new);
    install();
    let stop = AtomicBool::new(false);
    let deadline = Instant::now() + most;
    std::thread::scope(|scope| {
        for seed in 0..3 {
            let stop = &stop;
            scope.spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    black_box(work(seed));
                }
            });
        }
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build();
        let runtime = runtime.expect("a tokio runtime");
        for seed in 0..4 {
            runtime.spawn(async move {
                loop {
                    black_box(outer_task(seed).await);
                    tokio::task::yield_now().await;
                }
            });
        }
        while TAKEN.load(Ordering::Acquire) < samples && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(20));
        }
        timer(0);
        stop.store(true, Ordering::Relaxed);
        runtime.shutdown_background();
    });
    count()
}

static WALKER: OnceLock<Walker> = OnceLock::new();
static TAKEN: AtomicU64 = AtomicU64::new(0);
static BUSY: AtomicBool = AtomicBool::new(false);

const MOST: usize = 4000;
const DEPTH: usize = 256;

struct Taken {
    lengths: [usize; 2],
    ours: [u64; DEPTH],
    libgcc: [u64; DEPTH],
    end: u8,
}

struct Store(UnsafeCell<[Taken; MOST]>);

// SAFETY: an element is written by the one handler that holds BUSY and has its number, and read
// only after the timer was stopped and the threads were joined or BUSY was seen free.
unsafe impl Sync for Store {}

static STORE: Store = Store(UnsafeCell::new(
    [const { Taken { lengths: [0; 2], ours: [0; DEPTH], libgcc: [0; DEPTH], end: 0 } }; MOST],
));

fn count() -> Verdict {
    while BUSY.swap(true, Ordering::Acquire) {
        std::hint::spin_loop();
    }
    let taken = (TAKEN.load(Ordering::Acquire) as usize).min(MOST);
    // SAFETY: BUSY is held from here on for ever, so no handler writes any more.
    let all = unsafe { &*STORE.0.get() };
    let all = &all[..taken];
    let mut verdict = Verdict { samples: taken as u64, ..Verdict::default() };
    for one in all {
        let (ours, libgcc) = (&one.ours[..one.lengths[0]], &one.libgcc[..one.lengths[1]]);
        verdict.depth += ours.len() as u64;
        if ours == libgcc {
            verdict.equal += 1;
        } else if one.end == 2 || libgcc.len() == 1 {
            verdict.without_information += 1;
            verdict.examples.push((ours.to_vec(), libgcc.to_vec()));
        } else {
            verdict.differences.push((ours.to_vec(), libgcc.to_vec()));
        }
    }
    verdict
}

fn install() {
    // SAFETY: sigaction is plain data, the handler has the type that SA_SIGINFO asks for, and it
    // is async-signal-safe where libgcc's unwinder is: with glibc 2.35 or newer.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = handler as *const () as usize;
        action.sa_flags = libc::SA_SIGINFO | libc::SA_RESTART;
        libc::sigfillset(&mut action.sa_mask);
        assert_eq!(libc::sigaction(libc::SIGPROF, &action, std::ptr::null_mut()), 0);
    }
    timer(1000);
}

fn timer(micros: i64) {
    let every = libc::timeval { tv_sec: 0, tv_usec: micros };
    let value = libc::itimerval { it_interval: every, it_value: every };
    // SAFETY: the pointer is to a value of this frame.
    unsafe { libc::setitimer(libc::ITIMER_PROF, &value, std::ptr::null_mut()) };
}

unsafe extern "C" {
    fn _Unwind_Backtrace(
        each: extern "C" fn(*mut c_void, *mut c_void) -> i32,
        data: *mut c_void,
    ) -> i32;
    fn _Unwind_GetIPInfo(context: *mut c_void, before: *mut i32) -> usize;
}

struct Walk<'a> {
    out: &'a mut [u64; DEPTH],
    length: usize,
    start: u64,
    begun: bool,
}

extern "C" fn each(context: *mut c_void, data: *mut c_void) -> i32 {
    const GO_ON: i32 = 0;
    const STOP: i32 = 5;
    let mut before = 0;
    // SAFETY: libgcc hands back the pointer that `handler` gave it, and a valid context.
    let (walk, ip) =
        unsafe { (&mut *data.cast::<Walk<'_>>(), _Unwind_GetIPInfo(context, &mut before)) };
    let look = if before == 0 { (ip as u64).wrapping_sub(1) } else { ip as u64 };
    // The handler's own frames and the kernel's come first.
    walk.begun |= ip as u64 == walk.start;
    if !walk.begun {
        return GO_ON;
    }
    if ip == 0 || walk.length == DEPTH {
        return STOP;
    }
    walk.out[walk.length] = look;
    walk.length += 1;
    GO_ON
}

extern "C" fn handler(_: libc::c_int, _: *mut libc::siginfo_t, context: *mut c_void) {
    if BUSY.swap(true, Ordering::Acquire) {
        return;
    }
    let number = TAKEN.load(Ordering::Relaxed) as usize;
    if let (Some(walker), true) = (WALKER.get(), number < MOST) {
        // SAFETY: the kernel hands a valid context, errno is thread-local, and this handler alone
        // holds BUSY and so the element.
        unsafe {
            let errno = *libc::__errno_location();
            let at = &(*context.cast::<libc::ucontext_t>()).uc_mcontext;
            #[cfg(target_arch = "x86_64")]
            let (pc, sp, fp, lr) = (
                at.gregs[libc::REG_RIP as usize] as u64,
                at.gregs[libc::REG_RSP as usize] as u64,
                at.gregs[libc::REG_RBP as usize] as u64,
                0,
            );
            #[cfg(target_arch = "aarch64")]
            let (pc, sp, fp, lr) = (at.pc, at.sp, at.regs[29], at.regs[30]);
            let taken = &mut (&mut *STORE.0.get())[number];
            let (length, end) = walker.walk(pc, sp, fp, lr, &mut taken.ours);
            let mut walk = Walk { out: &mut taken.libgcc, length: 0, start: pc, begun: false };
            _Unwind_Backtrace(each, (&raw mut walk).cast());
            taken.lengths = [length, walk.length];
            taken.end = end;
            *libc::__errno_location() = errno;
        }
        TAKEN.store(number as u64 + 1, Ordering::Release);
    }
    BUSY.store(false, Ordering::Release);
}

trait Step {
    fn step(&self, depth: u32, seed: u64) -> u64;
}

struct Sort;
struct Text;
struct Tree;
struct Copy;

impl Step for Sort {
    #[inline(never)]
    fn step(&self, depth: u32, seed: u64) -> u64 {
        let mut v: Vec<u64> =
            (0..200).map(|i| seed.wrapping_mul(i).wrapping_mul(2_654_435_761) >> 7).collect();
        v.sort_unstable();
        v[depth as usize % 200] ^ next(depth, seed)
    }
}

impl Step for Text {
    #[inline(never)]
    fn step(&self, depth: u32, seed: u64) -> u64 {
        let text = format!("{seed:x}-{depth}-{:?}", Some(seed as f64 / 3.0));
        text.len() as u64 ^ next(depth, seed)
    }
}

impl Step for Tree {
    #[inline(never)]
    fn step(&self, depth: u32, seed: u64) -> u64 {
        let map: BTreeMap<u64, String> =
            (0..40).map(|i| (seed ^ (i * 77), i.to_string())).collect();
        map.range(seed / 2..).take(3).map(|(k, v)| k ^ v.len() as u64).fold(0, |a, b| a ^ b)
            ^ next(depth, seed)
    }
}

impl Step for Copy {
    #[inline(never)]
    fn step(&self, depth: u32, seed: u64) -> u64 {
        let mut bytes = vec![seed as u8; 4096];
        bytes.copy_within(1000..3000, 17);
        // A large frame with an over-aligned local.
        #[repr(align(64))]
        struct Aligned([u64; 64]);
        let aligned = black_box(Aligned([seed; 64]));
        u64::from(bytes[40]) ^ aligned.0[depth as usize % 64] ^ next(depth, seed)
    }
}

#[inline(never)]
fn next(depth: u32, seed: u64) -> u64 {
    let steps: [&dyn Step; 4] = [&Sort, &Text, &Tree, &Copy];
    if depth == 0 {
        return seed;
    }
    let seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
    steps[(seed >> 40) as usize % 4].step(depth - 1, seed)
}

#[inline(never)]
fn work(seed: u64) -> u64 {
    (0..20).map(|i| next(30, seed * 100 + i)).fold(0, |a, b| a ^ b)
}

async fn outer_task(seed: u64) -> u64 {
    let inner = inner_task(seed).await;
    Box::pin(async move { inner ^ work(seed) }).await
}

async fn inner_task(seed: u64) -> u64 {
    tokio::task::yield_now().await;
    next(12, seed)
}
