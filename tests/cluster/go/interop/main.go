// Command interop is client-go as anybody would use it: its WebSocket executor on any
// URL of the API server that speaks remotecommand. Standard input, output and error
// are the command's; the exit code is the command's, or 250 when the stream failed.
//
//	interop [-stdin] [-tty COLUMNSxROWS[,COLUMNSxROWS...]] PATH
//
// PATH is what follows the address of the server in the kubeconfig, for example
// /api/v1/namespaces/default/pods/web/exec?command=ls&stdout=true. With -tty the
// first size is told at the start, each further one when a line of output has come.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"strings"

	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/tools/remotecommand"
	"k8s.io/client-go/util/exec"
)

const failed = 250

// sizes gives one size now and one for each line that goes through it.
type sizes struct {
	next []remotecommand.TerminalSize
	line chan struct{}
	out  io.Writer
	told bool
}

func (s *sizes) Next() *remotecommand.TerminalSize {
	if s.told {
		if _, more := <-s.line; !more {
			return nil
		}
	}
	s.told = true
	if len(s.next) == 0 {
		return nil
	}
	size := s.next[0]
	s.next = s.next[1:]
	return &size
}

func (s *sizes) Write(bytes []byte) (int, error) {
	for range strings.Count(string(bytes), "\n") {
		select {
		case s.line <- struct{}{}:
		default:
		}
	}
	return s.out.Write(bytes)
}

func parse(list string) ([]remotecommand.TerminalSize, error) {
	var all []remotecommand.TerminalSize
	for _, word := range strings.Split(list, ",") {
		var size remotecommand.TerminalSize
		if _, err := fmt.Sscanf(word, "%dx%d", &size.Width, &size.Height); err != nil {
			return nil, fmt.Errorf("%q is no size: %w", word, err)
		}
		all = append(all, size)
	}
	return all, nil
}

func run() error {
	stdin := flag.Bool("stdin", false, "send standard input")
	tty := flag.String("tty", "", "sizes of a terminal")
	flag.Parse()
	if flag.NArg() != 1 {
		return errors.New("usage: interop [-stdin] [-tty SIZES] PATH")
	}
	config, err := clientcmd.BuildConfigFromFlags("", os.Getenv("KUBECONFIG"))
	if err != nil {
		return err
	}
	executor, err := remotecommand.NewWebSocketExecutor(config, "GET", strings.TrimSuffix(config.Host, "/")+flag.Arg(0))
	if err != nil {
		return err
	}
	options := remotecommand.StreamOptions{Stdout: os.Stdout, Stderr: os.Stderr}
	if *stdin {
		options.Stdin = os.Stdin
	}
	if *tty != "" {
		all, err := parse(*tty)
		if err != nil {
			return err
		}
		queue := &sizes{next: all, line: make(chan struct{}, 16), out: os.Stdout}
		options.Tty, options.Stderr, options.Stdout, options.TerminalSizeQueue = true, nil, queue, queue
	}
	return executor.StreamWithContext(context.Background(), options)
}

func main() {
	err := run()
	var code exec.CodeExitError
	switch {
	case err == nil:
	case errors.As(err, &code):
		fmt.Fprintln(os.Stderr, "interop:", err)
		os.Exit(code.Code)
	default:
		fmt.Fprintln(os.Stderr, "interop:", err)
		os.Exit(failed)
	}
}
