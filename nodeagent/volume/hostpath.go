package volume

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	corev1 "k8s.io/api/core/v1"
)

// checkHostPath makes or checks a path of the node as its type says.
func checkHostPath(h *corev1.HostPathVolumeSource) error {
	kind := corev1.HostPathUnset
	if h.Type != nil {
		kind = *h.Type
	}
	info, err := os.Stat(h.Path)
	missing := errors.Is(err, fs.ErrNotExist)
	if err != nil && !missing {
		return err
	}
	switch {
	case kind == corev1.HostPathUnset && missing, kind == corev1.HostPathDirectoryOrCreate && missing:
		return os.MkdirAll(h.Path, 0o755)
	case kind == corev1.HostPathFileOrCreate && missing:
		if _, err := os.Stat(filepath.Dir(h.Path)); err != nil {
			return err
		}
		return os.WriteFile(h.Path, nil, 0o644)
	case missing:
		return fmt.Errorf("hostPath type check failed: %s is not a %s: it does not exist", h.Path, describe(kind))
	}
	if !matches(kind, info.Mode()) {
		return fmt.Errorf("hostPath type check failed: %s is not a %s", h.Path, describe(kind))
	}
	return nil
}

func matches(kind corev1.HostPathType, mode fs.FileMode) bool {
	switch kind {
	case corev1.HostPathDirectory, corev1.HostPathDirectoryOrCreate:
		return mode.IsDir()
	case corev1.HostPathFile, corev1.HostPathFileOrCreate:
		return mode.IsRegular()
	case corev1.HostPathSocket:
		return mode&fs.ModeSocket != 0
	case corev1.HostPathCharDev:
		return mode&fs.ModeCharDevice != 0
	case corev1.HostPathBlockDev:
		return mode&fs.ModeDevice != 0 && mode&fs.ModeCharDevice == 0
	}
	return kind == corev1.HostPathUnset
}

func describe(kind corev1.HostPathType) string {
	switch kind {
	case corev1.HostPathDirectory, corev1.HostPathDirectoryOrCreate:
		return "directory"
	case corev1.HostPathFile, corev1.HostPathFileOrCreate:
		return "file"
	case corev1.HostPathSocket:
		return "socket file"
	case corev1.HostPathCharDev:
		return "character device"
	case corev1.HostPathBlockDev:
		return "block device"
	}
	return string(kind)
}
