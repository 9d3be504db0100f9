//! What the tests do to the process, by system calls.
#![expect(unsafe_code, reason = "the bad days are made by the system")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::{
    ffi::CString,
    fs, io, mem,
    net::UdpSocket,
    os::unix::process::CommandExt,
    process::Command,
    ptr,
    sync::OnceLock,
    thread,
    time::{Duration, Instant},
};

/// The calling thread's number.
pub fn tid() -> i32 {
    // SAFETY: gettid takes nothing and can't fail.
    unsafe { libc::gettid() }
}

/// Kills a process group, if it is still there.
pub fn kill_group(leader: u32) {
    // SAFETY: kill takes numbers; a group that is gone is an error that changes nothing.
    unsafe { libc::kill(-(leader as i32), libc::SIGKILL) };
}

/// How many POSIX timers this process has, as the kernel counts; `None` where it does not say.
pub fn posix_timers() -> Option<usize> {
    let timers = fs::read_to_string("/proc/self/timers").ok()?;
    Some(timers.lines().filter(|line| line.starts_with("ID:")).count())
}

/// A field of /proc/self/status.
pub fn status(field: &str) -> String {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
    line.unwrap_or_else(|| panic!("/proc/self/status has no {field}")).trim().to_owned()
}

/// How many threads this process has.
pub fn thread_count() -> usize {
    fs::read_dir("/proc/self/task").unwrap().count()
}

/// Blocks a signal in the calling thread, or lets it through again.
pub fn block(signal: i32, blocked: bool) {
    let how = if blocked { libc::SIG_BLOCK } else { libc::SIG_UNBLOCK };
    // SAFETY: a sigset_t is plain data, made empty before it is used, and lives in this frame.
    unsafe {
        let mut set: libc::sigset_t = mem::zeroed();
        libc::sigemptyset(&mut set);
        libc::sigaddset(&mut set, signal);
        assert_eq!(libc::pthread_sigmask(how, &set, ptr::null_mut()), 0);
    }
}

/// Sets the limit of signals that may be pending, of which each timer takes one.
pub fn limit_pending_signals(most: u64) {
    let limit = libc::rlimit { rlim_cur: most, rlim_max: most };
    // SAFETY: the pointer is to a value of this frame.
    assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_SIGPENDING, &limit) }, 0);
}

/// Makes a system call fail with EPERM in this process from now on, as container runtimes do.
pub fn forbid(call: libc::c_long) {
    const LOAD: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
    const IF_EQUAL: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
    const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;
    let step = |code, jt, jf, k| libc::sock_filter { code, jt, jf, k };
    let refuse = libc::SECCOMP_RET_ERRNO | libc::EPERM as u32;
    let mut filter = [
        // The number of the call is the first word of seccomp_data.
        step(LOAD, 0, 0, 0),
        step(IF_EQUAL, 0, 1, call as u32),
        step(RETURN, 0, 0, refuse),
        step(RETURN, 0, 0, libc::SECCOMP_RET_ALLOW),
    ];
    let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_mut_ptr() };
    // SAFETY: the program lives in this frame, and the kernel copies it.
    unsafe {
        assert_eq!(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0);
        let flags = libc::SECCOMP_FILTER_FLAG_TSYNC;
        let set = libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, flags, &program);
        assert_eq!(set, 0, "{}", io::Error::last_os_error());
    }
}

/// Takes /proc away from this process; needs root.
pub fn hide_proc() -> io::Result<()> {
    let check = |result| if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) };
    let none = ptr::null();
    // SAFETY: constant strings and null pointers, as mount(2) asks for.
    unsafe {
        check(libc::unshare(libc::CLONE_NEWNS))?;
        let private = libc::MS_REC | libc::MS_PRIVATE;
        check(libc::mount(none, c"/".as_ptr(), none, private, none.cast()))?;
        let (tmpfs, proc) = (c"tmpfs".as_ptr(), c"/proc".as_ptr());
        check(libc::mount(tmpfs, proc, tmpfs, 0, none.cast()))
    }
}

/// The lowest address of the calling thread's stack; its guard page is below.
pub fn stack_low() -> usize {
    let (mut low, mut size) = (ptr::null_mut(), 0);
    // SAFETY: the attributes are filled in by the first call, read by the second and freed by the
    // third; all pointers are to values of this frame.
    unsafe {
        let mut attributes: libc::pthread_attr_t = mem::zeroed();
        assert_eq!(libc::pthread_getattr_np(libc::pthread_self(), &mut attributes), 0);
        assert_eq!(libc::pthread_attr_getstack(&attributes, &mut low, &mut size), 0);
        libc::pthread_attr_destroy(&mut attributes);
    }
    low.addr()
}

/// The calling thread's thread pointer.
pub fn thread_pointer() -> usize {
    // SAFETY: pthread_self takes nothing; in glibc and musl the number is the thread pointer.
    unsafe { libc::pthread_self() as usize }
}

/// A library that was opened, and is closed when this goes.
pub struct Library(*mut libc::c_void);

impl Library {
    /// Loads a library.
    pub fn open(path: &std::path::Path) -> Self {
        let path = CString::new(path.to_str().unwrap()).unwrap();
        // SAFETY: a string; the libraries of these tests do nothing when they are loaded.
        let library = unsafe { libc::dlopen(path.as_ptr(), libc::RTLD_NOW | libc::RTLD_LOCAL) };
        assert!(!library.is_null(), "{path:?}");
        Self(library)
    }

    /// Calls a function of it.
    pub fn call(&self, function: &str, argument: u64) -> u64 {
        let name = CString::new(function).unwrap();
        // SAFETY: the library is open, and its functions have this type.
        unsafe {
            let address = libc::dlsym(self.0, name.as_ptr());
            assert!(!address.is_null(), "{function}");
            mem::transmute::<*mut libc::c_void, extern "C" fn(u64) -> u64>(address)(argument)
        }
    }
}

impl Drop for Library {
    fn drop(&mut self) {
        // SAFETY: it was opened, and none of its code runs.
        unsafe { libc::dlclose(self.0) };
    }
}

/// What a timer of the profiler carries: the run that armed it and the slot of its thread. Known
/// here because anybody may send it.
pub fn token(run: u16, slot: u32) -> u64 {
    0x4853 << 48 | u64::from(run) << 32 | u64::from(slot)
}

/// Sends a signal to the calling thread with this code, value and overrun in it. It has been
/// handled when this returns.
pub fn forge(signal: i32, code: i32, value: u64, overrun: i32) {
    /// The start of siginfo_t for a timer, see sigaction(2); 128 bytes in all.
    #[repr(C)]
    struct Info {
        signo: i32,
        errno: i32,
        code: i32,
        pad: i32,
        timer: i32,
        overrun: i32,
        value: u64,
        rest: [u64; 12],
    }
    let info =
        Info { signo: signal, errno: 0, code, pad: 0, timer: 7, overrun, value, rest: [0; 12] };
    let (pid, call) = (std::process::id() as i32, libc::SYS_rt_tgsigqueueinfo);
    // SAFETY: `info` has the size of a siginfo_t and lives in this frame; the kernel copies it.
    let sent = unsafe { libc::syscall(call, pid, tid(), signal, &info) };
    assert_eq!(sent, 0, "{}", io::Error::last_os_error());
}

/// Installs a handler of the program's own.
pub fn handle(signal: i32, handler: extern "C" fn(libc::c_int)) {
    install(signal, handler as *const () as usize, libc::SA_RESTART);
}

/// Installs a handler of the program's own that is given the value that was sent.
pub fn handle_with_value(signal: i32, handler: fn(i64)) {
    static HANDLER: OnceLock<fn(i64)> = OnceLock::new();
    extern "C" fn call(_: libc::c_int, info: *const libc::siginfo_t, _: *const libc::c_void) {
        // SAFETY: the kernel hands a siginfo to an SA_SIGINFO handler.
        let value = unsafe { (*info).si_value() };
        if let Some(handler) = HANDLER.get() {
            handler(value.sival_ptr.addr() as i64);
        }
    }
    HANDLER.set(handler).unwrap();
    install(signal, call as *const () as usize, libc::SA_RESTART | libc::SA_SIGINFO);
}

fn install(signal: i32, address: usize, flags: i32) {
    // SAFETY: sigaction is plain data; the address is of a handler of the type that `flags` say.
    unsafe {
        let mut action: libc::sigaction = mem::zeroed();
        action.sa_sigaction = address;
        action.sa_flags = flags;
        assert_eq!(libc::sigaction(signal, &action, ptr::null_mut()), 0);
    }
}

/// Raises a signal in the calling thread. It has been handled when this returns.
pub fn raise(signal: i32) {
    // SAFETY: raise takes a number.
    assert_eq!(unsafe { libc::raise(signal) }, 0);
}

/// Forks, without exec. The child runs `act` and exits with what it returns; says how that ended,
/// or that it had to be killed.
pub fn fork(act: impl FnOnce() -> i32) -> Result<i32, &'static str> {
    // SAFETY: the child runs with the parent's memory as it was, locks included; what it does
    // with that is what is tested, and it leaves by `_exit`.
    match unsafe { libc::fork() } {
        -1 => Err("fork failed"),
        0 => {
            let code = act();
            // SAFETY: _exit ends the process.
            unsafe { libc::_exit(code) }
        }
        child => {
            let deadline = Instant::now() + Duration::from_secs(20);
            let mut status = 0;
            loop {
                // SAFETY: waitpid fills in the number that the pointer is to.
                if unsafe { libc::waitpid(child, &mut status, libc::WNOHANG) } == child {
                    break;
                }
                if Instant::now() > deadline {
                    // SAFETY: kill and waitpid take numbers; the child is ours and not reaped.
                    unsafe {
                        libc::kill(child, libc::SIGKILL);
                        libc::waitpid(child, &mut status, 0);
                    }
                    return Err("the child hung, and was killed");
                }
                thread::sleep(Duration::from_millis(1));
            }
            if libc::WIFEXITED(status) {
                Ok(libc::WEXITSTATUS(status))
            } else {
                Err("the child died of a signal")
            }
        }
    }
}

/// Makes the command start by fork and exec, where it would by vfork.
pub fn by_fork(command: &mut Command) {
    // SAFETY: the closure does nothing, which is allowed in a forked child.
    unsafe { command.pre_exec(|| Ok(())) };
}

/// Ways to wait in the kernel, each for so long; whether it was interrupted.
pub const WAITS: [fn(Duration) -> bool; 5] = [
    |time| {
        let time = timespec(time);
        // SAFETY: the pointer is to a value of this frame, and a null one is allowed.
        interrupted(unsafe { libc::nanosleep(&time, ptr::null_mut()) }.into())
    },
    |time| {
        // SAFETY: no descriptors, so no pointer is followed.
        interrupted(unsafe { libc::poll(ptr::null_mut(), 0, time.as_millis() as i32) }.into())
    },
    |time| {
        // SAFETY: the descriptor is closed again, and the event lives in this frame.
        unsafe {
            let mut event: libc::epoll_event = mem::zeroed();
            let epoll = libc::epoll_create1(0);
            let result = libc::epoll_wait(epoll, &mut event, 1, time.as_millis() as i32);
            let result = interrupted(result.into());
            libc::close(epoll);
            result
        }
    },
    |time| {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.set_read_timeout(Some(time)).unwrap();
        let error = socket.recv(&mut [0; 8]).unwrap_err();
        error.kind() == io::ErrorKind::Interrupted
    },
    |time| {
        let (word, time) = (0u32, timespec(time));
        let call = libc::FUTEX_WAIT | libc::FUTEX_PRIVATE_FLAG;
        // SAFETY: the word and the time live in this frame.
        interrupted(unsafe { libc::syscall(libc::SYS_futex, &word, call, 0, &time) })
    },
];

fn timespec(time: Duration) -> libc::timespec {
    libc::timespec { tv_sec: time.as_secs() as i64, tv_nsec: time.subsec_nanos().into() }
}

fn interrupted(result: i64) -> bool {
    result == -1 && io::Error::last_os_error().kind() == io::ErrorKind::Interrupted
}
