// SPDX-License-Identifier: Apache-2.0
// A QMP client of others: commands from standard input, one a line, to the server on the unix
// socket that is named; answers and events on standard output.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"sync"
	"time"

	"github.com/digitalocean/go-qemu/qmp"
)

func fail(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func main() {
	monitor, err := qmp.NewSocketMonitor("unix", os.Args[1], 10*time.Second)
	fail(err)
	fail(monitor.Connect())
	fmt.Println("version", monitor.Version.QEMU.Major, monitor.Version.QEMU.Minor)
	events, err := monitor.Events(context.Background())
	fail(err)
	var writing sync.Mutex
	say := func(words ...any) {
		writing.Lock()
		defer writing.Unlock()
		fmt.Println(words...)
	}
	go func() {
		for event := range events {
			data, err := json.Marshal(event.Data)
			fail(err)
			say("event", event.Event, string(data))
		}
	}()
	input := bufio.NewScanner(os.Stdin)
	for input.Scan() {
		answer, err := monitor.Run(input.Bytes())
		if err != nil {
			say("refused", err)
		} else {
			say("answer", string(answer))
		}
	}
	fail(monitor.Disconnect())
}
