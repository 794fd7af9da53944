package logs

import (
	"bufio"
	"errors"
	"io"
)

// seekTail positions the files at the last n complete log lines and closes those before them.
func seekTail(list []*file, n int64) ([]*file, error) {
	for i := len(list) - 1; i >= 0; i-- {
		offset, found, err := tailStart(list[i], list[i].entry.info.Size(), n)
		if err != nil {
			return list, err
		}
		if _, err := list[i].Seek(offset, io.SeekStart); err != nil {
			return list, err
		}
		if found == n {
			closeAll(list[:i])
			return list[i:], nil
		}
		n -= found
	}
	return list, nil
}

// firstWindow is how much of a file's end is looked at first for its last lines.
const firstWindow = 256 << 10

// tailStart returns where the last n lines in the first size bytes of f begin and how many these are: fewer than n
// when there are no more. Pieces of one long line count as one.
func tailStart(f io.ReaderAt, size, n int64) (offset, found int64, err error) {
	if n == 0 {
		return size, 0, nil
	}
	for window := int64(firstWindow); ; window *= 8 {
		from := max(size-window, 0)
		count, _, err := scan(f, from, size, -1)
		if err != nil {
			return 0, 0, err
		}
		if count >= n {
			_, offset, err = scan(f, from, size, count-n)
			return offset, n, err
		}
		if from == 0 {
			return 0, count, nil
		}
	}
}

// scan counts the log lines that begin between two offsets, and says where the one with the given number does. When it
// does not begin at the file's beginning, the first piece of each stream is not counted: it may belong to a line that
// began before.
func scan(f io.ReaderAt, from, to, number int64) (count, offset int64, err error) {
	r := bufio.NewReaderSize(io.NewSectionReader(f, from, to-from), 64<<10)
	joined := map[string]bool{} // by stream: the next piece belongs to a line that was counted
	at := from
	for first := from > 0; ; first = false {
		head, err := r.ReadSlice('\n')
		length := int64(len(head))
		if len(head) > 0 && !first {
			stream, more := partial(head)
			before, known := joined[stream]
			if !before && (known || from == 0) {
				if count == number {
					return count, at, nil
				}
				count++
			}
			joined[stream] = more
		}
		for errors.Is(err, bufio.ErrBufferFull) {
			head, err = r.ReadSlice('\n')
			length += int64(len(head))
		}
		at += length
		if errors.Is(err, io.EOF) {
			return count, at, nil
		}
		if err != nil {
			return count, at, err
		}
	}
}
