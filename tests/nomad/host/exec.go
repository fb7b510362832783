package main

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/hashicorp/nomad/plugins/drivers"
	"github.com/hashicorp/nomad/plugins/drivers/proto"
)

// Session is one `alloc exec`: what the user types goes in by exec_input commands, what the
// command prints comes out as events.
type Session struct {
	ctx    context.Context
	name   string
	input  chan *drivers.ExecTaskStreamingRequestMsg
	event  func(Answer)
	result *proto.ExitResult
}

// Recv hands the plugin's client the next thing the user did.
func (s *Session) Recv() (*drivers.ExecTaskStreamingRequestMsg, error) {
	select {
	case message := <-s.input:
		return message, nil
	case <-s.ctx.Done():
		return nil, io.EOF
	}
}

// Send takes what came from the plugin.
func (s *Session) Send(message *drivers.ExecTaskStreamingResponseMsg) error {
	line := Answer{"event": "exec", "session": s.name}
	for name, stream := range map[string]*proto.ExecTaskStreamingIOOperation{
		"stdout": message.Stdout, "stderr": message.Stderr,
	} {
		if stream == nil {
			continue
		}
		if stream.Close {
			line[name+"_closed"] = true
		} else {
			line[name] = stream.Data
		}
	}
	if message.Exited {
		s.result = message.Result
		line["exited"] = true
	}
	s.event(line)
	return nil
}

// execStream answers when the command has ended.
func (h *Host) execStream(command *Command) (Answer, error) {
	driver, err := h.dispense()
	if err != nil {
		return nil, err
	}
	raw, able := driver.(drivers.ExecTaskStreamingRawDriver)
	if !able {
		return nil, errors.New("this driver cannot stream an exec")
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	session := &Session{
		ctx: ctx, name: command.Session, event: h.event,
		input: make(chan *drivers.ExecTaskStreamingRequestMsg, 64),
	}
	if err := h.addSession(session); err != nil {
		return nil, err
	}
	defer h.dropSession(session)
	h.event(Answer{"event": "exec", "session": session.name, "opened": true})
	err = raw.ExecTaskStreamingRaw(ctx, command.TaskID, command.Argv, command.TTY, session)
	if err != nil {
		return nil, err
	}
	if session.result == nil {
		return nil, errors.New("the stream ended without an exit result")
	}
	return Answer{
		"exit_code": session.result.ExitCode, "signal": session.result.Signal,
	}, nil
}

// execInput sends stdin, its end, a terminal size, or (with none of them) a heartbeat.
func (h *Host) execInput(command *Command) (Answer, error) {
	h.mu.Lock()
	session := h.sessions[command.Session]
	h.mu.Unlock()
	if session == nil {
		return nil, fmt.Errorf("no exec session %q", command.Session)
	}
	message := &drivers.ExecTaskStreamingRequestMsg{}
	if len(command.Data) > 0 || command.Close {
		message.Stdin = &proto.ExecTaskStreamingIOOperation{
			Data: command.Data, Close: command.Close,
		}
	}
	if command.Height > 0 {
		message.TtySize = &proto.ExecTaskStreamingRequest_TerminalSize{
			Height: command.Height, Width: command.Width,
		}
	}
	select {
	case session.input <- message:
		return nil, nil
	case <-session.ctx.Done():
		return nil, errors.New("the exec has ended")
	}
}

func (h *Host) addSession(session *Session) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.sessions[session.name] != nil {
		return fmt.Errorf("exec session %q exists", session.name)
	}
	h.sessions[session.name] = session
	return nil
}

func (h *Host) dropSession(session *Session) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.sessions, session.name)
}
