package runspec

import (
	"bufio"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/slipway-dev/slipway/nodeagent/engine"
)

// Accounts is what an image's /etc/passwd and /etc/group say.
type Accounts struct {
	users  []userEntry
	groups []groupEntry
}

type userEntry struct {
	name     string
	uid, gid uint32
}

type groupEntry struct {
	name    string
	gid     uint32
	members []string
}

const maxAccountLine = 64 << 10

// ParseAccounts reads both files; lines that make no sense are passed over, as the C library does.
func ParseAccounts(passwd, group io.Reader) Accounts {
	var a Accounts
	eachLine(passwd, func(f []string) {
		if len(f) < 4 {
			return
		}
		uid, err1 := parseID(f[2])
		gid, err2 := parseID(f[3])
		if err1 == nil && err2 == nil {
			a.users = append(a.users, userEntry{f[0], uid, gid})
		}
	})
	eachLine(group, func(f []string) {
		if len(f) < 3 {
			return
		}
		gid, err := parseID(f[2])
		if err != nil {
			return
		}
		entry := groupEntry{name: f[0], gid: gid}
		if len(f) > 3 && f[3] != "" {
			entry.members = strings.Split(f[3], ",")
		}
		a.groups = append(a.groups, entry)
	})
	return a
}

func eachLine(r io.Reader, do func(fields []string)) {
	if r == nil {
		return
	}
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, maxAccountLine)
	for lines.Scan() {
		do(strings.Split(lines.Text(), ":"))
	}
}

func parseID(s string) (uint32, error) {
	n, err := strconv.ParseUint(strings.TrimSpace(s), 10, 32)
	return uint32(n), err
}

// resolveUser finds ids and groups of the process: those of the security settings, else the image's user.
func resolveUser(s engine.Security, imageUser string, a Accounts) (specs.User, error) {
	userName, groupName, hasGroup := strings.Cut(imageUser, ":")
	if s.UID != nil {
		userName = strconv.FormatInt(*s.UID, 10)
		if s.GID == nil {
			hasGroup = false
		}
	}
	if userName == "" {
		userName = "0"
	}
	entry, err := a.user(userName)
	if err != nil {
		return specs.User{}, err
	}
	user := specs.User{UID: entry.uid, GID: entry.gid}
	switch {
	case s.GID != nil:
		user.GID = uint32(*s.GID)
	case hasGroup && groupName != "":
		if user.GID, err = a.group(groupName); err != nil {
			return specs.User{}, err
		}
	}
	if s.NonRoot && user.UID == 0 {
		return specs.User{}, fmt.Errorf("%w: runAsNonRoot is set and the user is root (image user %q)", engine.ErrConfig, imageUser)
	}
	user.AdditionalGids = a.supplementary(entry.name, user.GID, s.Groups)
	return user, nil
}

// user finds a user by name or number. A number need not be listed; its group is then 0.
func (a Accounts) user(name string) (userEntry, error) {
	uid, err := parseID(name)
	for _, u := range a.users {
		if u.name == name || err == nil && u.uid == uid {
			return u, nil
		}
	}
	if err != nil {
		return userEntry{}, fmt.Errorf("%w: the image has no user %q", engine.ErrConfig, name)
	}
	return userEntry{uid: uid}, nil
}

func (a Accounts) group(name string) (uint32, error) {
	for _, g := range a.groups {
		if g.name == name {
			return g.gid, nil
		}
	}
	gid, err := parseID(name)
	if err != nil {
		return 0, fmt.Errorf("%w: the image has no group %q", engine.ErrConfig, name)
	}
	return gid, nil
}

// supplementary returns the primary group, those the image lists the user in, and those asked for, without doubles.
func (a Accounts) supplementary(name string, primary uint32, asked []int64) []uint32 {
	gids := []uint32{primary}
	for _, g := range a.groups {
		if name != "" && slices.Contains(g.members, name) {
			gids = append(gids, g.gid)
		}
	}
	for _, g := range asked {
		gids = append(gids, uint32(g))
	}
	slices.Sort(gids)
	return slices.Compact(gids)
}
