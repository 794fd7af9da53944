package runspec

import "golang.org/x/sys/unix"

// hasX32 asks the kernel for a process id by the x32 ABI.
func hasX32() bool {
	const x32 = 0x40000000
	_, _, errno := unix.RawSyscall(x32|unix.SYS_GETPID, 0, 0, 0)
	return errno == 0
}
