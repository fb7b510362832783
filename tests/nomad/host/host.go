package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/hcl"
	"github.com/hashicorp/nomad/client/pluginmanager/drivermanager"
	"github.com/hashicorp/nomad/client/pluginmanager/drivermanager/state"
	"github.com/hashicorp/nomad/helper/pluginutils/hclspecutils"
	"github.com/hashicorp/nomad/helper/pluginutils/hclutils"
	"github.com/hashicorp/nomad/helper/pluginutils/loader"
	"github.com/hashicorp/nomad/helper/pluginutils/singleton"
	"github.com/hashicorp/nomad/nomad/structs"
	"github.com/hashicorp/nomad/nomad/structs/config"
	"github.com/hashicorp/nomad/plugins/base"
	"github.com/hashicorp/nomad/plugins/drivers"
	pstructs "github.com/hashicorp/nomad/plugins/shared/structs"
	"github.com/zclconf/go-cty/cty"
	ctyjson "github.com/zclconf/go-cty/cty/json"
)

const firstFingerprintTimeout = 60 * time.Second

// Memory stands in for the agent's state database: where to find a running plugin again.
type Memory struct {
	mu    sync.Mutex
	saved *state.PluginState
}

// GetDriverPluginState is what the driver manager reads at its start.
func (m *Memory) GetDriverPluginState() (*state.PluginState, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.saved, nil
}

// PutDriverPluginState is called whenever an instance was started or ended.
func (m *Memory) PutDriverPluginState(saved *state.PluginState) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.saved = saved
	return nil
}

func (m *Memory) reattach(driver string) *pstructs.ReattachConfig {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.saved == nil {
		return nil
	}
	return m.saved.ReattachConfigs[driver]
}

// Host owns one launched plugin and what is known of its tasks.
type Host struct {
	logger hclog.Logger
	event  func(Answer)
	state  *Memory

	mu       sync.Mutex
	name     string
	manager  drivermanager.Manager
	handles  map[string]*drivers.TaskHandle
	logs     map[string]*Collector
	sessions map[string]*Session
}

func newHost(logger hclog.Logger, event func(Answer)) *Host {
	return &Host{
		logger: logger, event: event, state: &Memory{},
		handles:  map[string]*drivers.TaskHandle{},
		logs:     map[string]*Collector{},
		sessions: map[string]*Session{},
	}
}

// launch scans the plugin directory as an agent's start does (two probes of each plugin), then
// gives the result to a driver manager, and returns after the first fingerprint.
func (h *Host) launch(command *Command) (Answer, error) {
	began := time.Now()
	plugin := &config.PluginConfig{Name: command.Driver, Args: command.Args}
	if err := hcl.Decode(&plugin.Config, command.ConfigHCL); err != nil {
		return nil, fmt.Errorf("plugin config: %w", err)
	}
	catalog, err := loader.NewPluginLoader(&loader.PluginLoaderConfig{
		Logger:            h.logger,
		PluginDir:         command.PluginDir,
		Configs:           []*config.PluginConfig{plugin},
		SupportedVersions: loader.AgentSupportedApiVersions,
	})
	if err != nil {
		return nil, err
	}
	if command.Reattach != nil {
		known := map[string]*pstructs.ReattachConfig{command.Driver: command.Reattach}
		h.state.saved = &state.PluginState{ReattachConfigs: known}
	}
	manager := drivermanager.New(&drivermanager.Config{
		Logger:              h.logger,
		Loader:              singleton.NewSingletonLoader(h.logger, catalog),
		PluginConfig:        agentConfig(),
		Updater:             h.fingerprinted,
		EventHandlerFactory: h.eventHandler,
		State:               h.state,
	})
	h.mu.Lock()
	h.name, h.manager = command.Driver, manager
	h.mu.Unlock()
	manager.Run()
	ctx, cancel := context.WithTimeout(context.Background(), firstFingerprintTimeout)
	defer cancel()
	<-manager.WaitForFirstFingerprint(ctx)
	answer, err := h.pluginState(command)
	if answer != nil {
		answer["catalog"] = catalog.Catalog()[base.PluginTypeDriver]
		answer["seconds"] = time.Since(began).Seconds()
	}
	return answer, err
}

// pluginState says which process serves, and what it says it can do.
func (h *Host) pluginState(*Command) (Answer, error) {
	driver, err := h.dispense()
	if err != nil {
		return nil, err
	}
	capabilities, err := driver.Capabilities()
	if err != nil {
		return nil, err
	}
	return Answer{"reattach": h.state.reattach(h.name), "capabilities": capabilities}, nil
}

func (h *Host) dispense() (drivers.DriverPlugin, error) {
	h.mu.Lock()
	manager, name := h.manager, h.name
	h.mu.Unlock()
	if manager == nil {
		return nil, errors.New("nothing was launched yet")
	}
	return manager.Dispense(name)
}

func (h *Host) fingerprinted(driver string, info *structs.DriverInfo) {
	if info == nil {
		return
	}
	h.event(Answer{
		"event": "fingerprint", "driver": driver, "detected": info.Detected,
		"healthy": info.Healthy, "description": info.HealthDescription,
		"attributes": info.Attributes,
	})
}

func (h *Host) eventHandler(allocID, task string) drivermanager.EventHandler {
	return func(event *drivers.TaskEvent) {
		line := Answer{
			"event": "task", "task_id": event.TaskID, "alloc_id": allocID, "task": task,
			"message": event.Message, "annotations": event.Annotations, "at": event.Timestamp,
		}
		if event.Err != nil {
			line["error"] = event.Err.Error()
		}
		h.event(line)
	}
}

// taskConfig reads the body of a job's `config` block against the schema the plugin serves.
func (h *Host) taskConfig(text string) (cty.Value, error) {
	driver, err := h.dispense()
	if err != nil {
		return cty.NilVal, err
	}
	schema, err := driver.TaskConfigSchema()
	if err != nil {
		return cty.NilVal, err
	}
	spec, diagnostics := hclspecutils.Convert(schema)
	if diagnostics.HasErrors() {
		return cty.NilVal, diagnostics
	}
	body := map[string]any{}
	if err := hcl.Decode(&body, text); err != nil {
		return cty.NilVal, err
	}
	value, diagnostics, problems := hclutils.ParseHclInterface(body, spec, nil)
	if diagnostics.HasErrors() {
		return cty.NilVal, errors.Join(problems...)
	}
	return value, nil
}

func plainJSON(value cty.Value) (any, error) {
	text, err := ctyjson.Marshal(value, value.Type())
	if err != nil {
		return nil, err
	}
	return rawJSON(text), nil
}

func (h *Host) remember(handle *drivers.TaskHandle) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.handles[handle.Config.ID] = handle
}

func (h *Host) handle(id string) *drivers.TaskHandle {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.handles[id]
}

// forget drops the handle and ends log collection, as the task runner's last hook does.
func (h *Host) forget(id string) {
	h.mu.Lock()
	collector := h.logs[id]
	delete(h.handles, id)
	delete(h.logs, id)
	h.mu.Unlock()
	if collector != nil {
		if err := collector.Stop(); err != nil {
			h.logger.Warn("log collection did not end well", "task", id, "error", err)
		}
		collector.process.Kill()
	}
}

// shutdown ends the plugin as an agent's clean stop does: by its Shutdown call, then the process.
// Tasks and their log collectors go on.
func (h *Host) shutdown() {
	h.mu.Lock()
	manager := h.manager
	h.manager = nil
	h.mu.Unlock()
	if manager != nil {
		manager.Shutdown()
	}
}
