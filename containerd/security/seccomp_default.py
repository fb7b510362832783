"""Holds the default seccomp profile: calls that are not listed fail with EPERM.

The profile allows the calls that Docker and containerd allow: years of use have shown the needs of
programs. The names are sorted by purpose. Runtimes skip names unknown to their libseccomp.
"""

from __future__ import annotations

import errno

from containerd.security.seccomp import ALLOW, ERRNO, Argument, Condition, Profile, Rule

_FILES = """
open openat openat2 creat close close_range name_to_handle_at
read readv pread64 preadv preadv2 write writev pwrite64 pwritev pwritev2 lseek _llseek
sendfile sendfile64 splice tee vmsplice copy_file_range readahead fadvise64 fadvise64_64
truncate truncate64 ftruncate ftruncate64 fallocate fsync fdatasync sync syncfs sync_file_range
dup dup2 dup3 fcntl fcntl64 flock ioctl pipe pipe2 memfd_create memfd_secret
stat stat64 lstat lstat64 fstat fstat64 fstatat64 newfstatat statx cachestat
statfs statfs64 fstatfs fstatfs64 statmount listmount
access faccessat faccessat2 chmod fchmod fchmodat fchmodat2 umask
chown chown32 fchown fchown32 lchown lchown32 fchownat
link linkat symlink symlinkat readlink readlinkat unlink unlinkat rename renameat renameat2
mkdir mkdirat rmdir mknod mknodat getdents getdents64 getcwd chdir fchdir
utime utimes futimesat utimensat utimensat_time64
getxattr lgetxattr fgetxattr getxattrat setxattr lsetxattr fsetxattr setxattrat
listxattr llistxattr flistxattr listxattrat removexattr lremovexattr fremovexattr removexattrat
inotify_init inotify_init1 inotify_add_watch inotify_rm_watch fanotify_mark
"""
_WAITING = """
poll ppoll ppoll_time64 select _newselect pselect6 pselect6_time64
epoll_create epoll_create1 epoll_ctl epoll_ctl_old epoll_wait epoll_wait_old epoll_pwait
epoll_pwait2 eventfd eventfd2 signalfd signalfd4
io_setup io_submit io_cancel io_destroy io_getevents io_pgetevents io_pgetevents_time64
"""
_MEMORY = """
brk mmap mmap2 munmap mremap remap_file_pages mprotect msync madvise mincore mseal
mlock mlock2 mlockall munlock munlockall membarrier map_shadow_stack
pkey_alloc pkey_free pkey_mprotect shmat shmctl shmdt shmget
"""
_PROCESSES = """
fork vfork execve execveat exit exit_group wait4 waitid waitpid pause restart_syscall
getpid getppid gettid getpgid getpgrp setpgid getsid setsid
getuid getuid32 geteuid geteuid32 getgid getgid32 getegid getegid32 getgroups getgroups32
getresuid getresuid32 getresgid getresgid32 setuid setuid32 setgid setgid32 setgroups setgroups32
setreuid setreuid32 setregid setregid32 setresuid setresuid32 setresgid setresgid32
setfsuid setfsuid32 setfsgid setfsgid32 capget capset prctl
getrlimit ugetrlimit setrlimit prlimit64 getrusage getpriority setpriority ioprio_get ioprio_set
pidfd_open pidfd_send_signal process_mrelease
seccomp landlock_create_ruleset landlock_add_rule landlock_restrict_self
lsm_get_self_attr lsm_set_self_attr lsm_list_modules uname sysinfo getrandom
"""
_THREADS = """
futex futex_time64 futex_waitv futex_wait futex_wake futex_requeue set_tid_address
get_robust_list set_robust_list get_thread_area set_thread_area rseq getcpu uretprobe
sched_yield sched_getaffinity sched_setaffinity sched_getattr sched_setattr sched_getparam
sched_setparam sched_getscheduler sched_setscheduler sched_get_priority_max
sched_get_priority_min sched_rr_get_interval sched_rr_get_interval_time64
"""
_SIGNALS = """
kill tkill tgkill rt_sigaction rt_sigpending rt_sigprocmask rt_sigqueueinfo rt_tgsigqueueinfo
rt_sigreturn rt_sigsuspend rt_sigtimedwait rt_sigtimedwait_time64 sigaltstack sigprocmask sigreturn
"""
_TIME = """
time times gettimeofday clock_gettime clock_gettime64 clock_getres clock_getres_time64
clock_nanosleep clock_nanosleep_time64 nanosleep adjtimex clock_adjtime clock_adjtime64
alarm getitimer setitimer timer_create timer_delete timer_getoverrun timer_gettime
timer_gettime64 timer_settime timer_settime64 timerfd_create timerfd_gettime timerfd_gettime64
timerfd_settime timerfd_settime64
"""
_TALKING = """
socketcall socketpair bind listen accept accept4 connect shutdown getsockname getpeername
getsockopt setsockopt send sendto sendmsg sendmmsg recv recvfrom recvmsg recvmmsg recvmmsg_time64
ipc msgctl msgget msgrcv msgsnd semctl semget semop semtimedop semtimedop_time64
mq_open mq_unlink mq_notify mq_getsetattr mq_timedsend mq_timedsend_time64 mq_timedreceive
mq_timedreceive_time64
"""
_TRACING = "ptrace process_vm_readv process_vm_writev"

_BY_ARCHITECTURE = {
    ("amd64",): "arch_prctl modify_ldt",
    ("x86",): "modify_ldt",
    ("arm", "arm64"): "arm_fadvise64_64 arm_sync_file_range sync_file_range2 breakpoint cacheflush"
    " set_tls",
    ("ppc64le",): "sync_file_range2 swapcontext",
    ("riscv64",): "riscv_flush_icache riscv_hwprobe",
    ("s390x",): "s390_pci_mmio_read s390_pci_mmio_write s390_runtime_instr",
}
_BY_CAPABILITY = {
    "CAP_BPF": "bpf",
    "CAP_DAC_READ_SEARCH": "open_by_handle_at",
    "CAP_PERFMON": "perf_event_open",
    "CAP_SYSLOG": "syslog",
    "CAP_SYS_ADMIN": "mount umount umount2 mount_setattr move_mount open_tree fsopen fsconfig"
    " fsmount fspick unshare setns clone clone3 sethostname setdomainname bpf perf_event_open"
    " syslog fanotify_init quotactl quotactl_fd lookup_dcookie",
    "CAP_SYS_BOOT": "reboot",
    "CAP_SYS_CHROOT": "chroot",
    "CAP_SYS_MODULE": "init_module finit_module delete_module",
    "CAP_SYS_NICE": "get_mempolicy set_mempolicy set_mempolicy_home_node mbind",
    "CAP_SYS_PACCT": "acct",
    "CAP_SYS_PTRACE": f"{_TRACING} kcmp pidfd_getfd process_madvise",
    "CAP_SYS_RAWIO": "iopl ioperm",
    "CAP_SYS_TIME": "settimeofday stime clock_settime clock_settime64",
    "CAP_SYS_TTY_CONFIG": "vhangup",
}
_ADMIN = Condition(capabilities=("CAP_SYS_ADMIN",))
# PER_LINUX, PER_LINUX32, UNAME26, PER_LINUX32 with UNAME26, and the query of the present value.
_PERSONALITIES = (0x0, 0x8, 0x20000, 0x20008, 0xFFFFFFFF)
_AF_ALG, _AF_VSOCK = 38, 40
# CLONE_NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID and NEWNET.
_NEW_NAMESPACES = 0x7E020000


def _compare(name: str, op: str, value: int, index: int = 0) -> Rule:
    return Rule(
        names=(name,),
        arguments=(Argument(index=index, value=value, op=f"SCMP_CMP_{op}"),),
    )


def _threads_but_no_namespaces() -> tuple[Rule, ...]:
    """Allows clone(2) without new namespaces to tasks without SYS_ADMIN.

    A filter cannot read the flags of clone3, because the flags are in memory. ENOSYS makes C
    libraries fall back to clone. On s390x the flags are clone's second argument.
    """
    argument = {
        index: (Argument(index=index, value=_NEW_NAMESPACES, op="SCMP_CMP_MASKED_EQ"),)
        for index in (0, 1)
    }
    s390 = ("s390", "s390x")
    return (
        Rule(
            names=("clone",),
            arguments=argument[0],
            unless=Condition(capabilities=_ADMIN.capabilities, architectures=s390),
        ),
        Rule(
            names=("clone",),
            arguments=argument[1],
            only_if=Condition(architectures=s390),
            unless=_ADMIN,
        ),
        Rule(names=("clone3",), action=ERRNO, errno=errno.ENOSYS, unless=_ADMIN),
    )


DEFAULT_PROFILE = Profile(
    default_action=ERRNO,
    default_errno=errno.EPERM,
    rules=(
        *(
            Rule(names=tuple(names.split()), action=ALLOW)
            for names in (
                *(_FILES, _WAITING, _MEMORY, _PROCESSES, _THREADS, _SIGNALS, _TIME, _TALKING),
            )
        ),
        # All families except AF_ALG and AF_VSOCK. Each range is a separate rule: comparisons of an
        # argument within a rule are alternatives, and "not A or not B" is always true.
        _compare("socket", "LT", _AF_ALG),
        _compare("socket", "EQ", _AF_ALG + 1),
        _compare("socket", "GT", _AF_VSOCK),
        *(_compare("personality", "EQ", persona) for persona in _PERSONALITIES),
        # Before Linux 4.8 a tracer could bypass the filter.
        Rule(names=tuple(_TRACING.split()), only_if=Condition(min_kernel=(4, 8))),
        *(
            Rule(names=tuple(names.split()), only_if=Condition(architectures=architectures))
            for architectures, names in _BY_ARCHITECTURE.items()
        ),
        *(
            Rule(names=tuple(names.split()), only_if=Condition(capabilities=(capability,)))
            for capability, names in _BY_CAPABILITY.items()
        ),
        *_threads_but_no_namespaces(),
    ),
)
