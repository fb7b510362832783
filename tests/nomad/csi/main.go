// Command csi is a small CSI plugin for Nomad: controller and node of volumes that are directories.
//
//	csi SOCKET NODE [STORAGE]
//
// The plugin listens on SOCKET, and first says if the device NODE of the host is in its /dev. Without
// STORAGE the plugin is a node plugin without volumes. With STORAGE a volume is a directory below
// STORAGE, which the node binds to the paths of Nomad. Each call about a volume is a line of output.
package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

type plugin struct {
	csi.UnimplementedIdentityServer
	csi.UnimplementedControllerServer
	csi.UnimplementedNodeServer
	storage string
}

func (plugin) GetPluginInfo(
	context.Context, *csi.GetPluginInfoRequest,
) (*csi.GetPluginInfoResponse, error) {
	return &csi.GetPluginInfoResponse{Name: "test.driver", VendorVersion: "1"}, nil
}

func (p plugin) GetPluginCapabilities(
	context.Context, *csi.GetPluginCapabilitiesRequest,
) (*csi.GetPluginCapabilitiesResponse, error) {
	answer := &csi.GetPluginCapabilitiesResponse{}
	if p.storage != "" {
		service := &csi.PluginCapability_Service{
			Type: csi.PluginCapability_Service_CONTROLLER_SERVICE,
		}
		answer.Capabilities = []*csi.PluginCapability{
			{Type: &csi.PluginCapability_Service_{Service: service}},
		}
	}
	return answer, nil
}

func (plugin) Probe(context.Context, *csi.ProbeRequest) (*csi.ProbeResponse, error) {
	return &csi.ProbeResponse{}, nil
}

// The controller

func (plugin) ControllerGetCapabilities(
	context.Context, *csi.ControllerGetCapabilitiesRequest,
) (*csi.ControllerGetCapabilitiesResponse, error) {
	answer := &csi.ControllerGetCapabilitiesResponse{}
	for _, kind := range []csi.ControllerServiceCapability_RPC_Type{
		csi.ControllerServiceCapability_RPC_CREATE_DELETE_VOLUME,
		csi.ControllerServiceCapability_RPC_PUBLISH_UNPUBLISH_VOLUME,
	} {
		rpc := &csi.ControllerServiceCapability_RPC{Type: kind}
		answer.Capabilities = append(answer.Capabilities, &csi.ControllerServiceCapability{
			Type: &csi.ControllerServiceCapability_Rpc{Rpc: rpc},
		})
	}
	return answer, nil
}

func (p plugin) CreateVolume(
	_ context.Context, request *csi.CreateVolumeRequest,
) (*csi.CreateVolumeResponse, error) {
	if err := said("create", request.Name, os.MkdirAll(p.directory(request.Name), 0o777)); err != nil {
		return nil, err
	}
	return &csi.CreateVolumeResponse{
		Volume: &csi.Volume{VolumeId: request.Name, CapacityBytes: 1 << 20},
	}, nil
}

func (p plugin) DeleteVolume(
	_ context.Context, request *csi.DeleteVolumeRequest,
) (*csi.DeleteVolumeResponse, error) {
	err := said("delete", request.VolumeId, os.RemoveAll(p.directory(request.VolumeId)))
	return &csi.DeleteVolumeResponse{}, err
}

func (plugin) ValidateVolumeCapabilities(
	_ context.Context, request *csi.ValidateVolumeCapabilitiesRequest,
) (*csi.ValidateVolumeCapabilitiesResponse, error) {
	return &csi.ValidateVolumeCapabilitiesResponse{
		Confirmed: &csi.ValidateVolumeCapabilitiesResponse_Confirmed{
			VolumeCapabilities: request.VolumeCapabilities,
		},
	}, nil
}

func (plugin) ControllerPublishVolume(
	_ context.Context, request *csi.ControllerPublishVolumeRequest,
) (*csi.ControllerPublishVolumeResponse, error) {
	return &csi.ControllerPublishVolumeResponse{}, said("attach", request.VolumeId, nil)
}

func (plugin) ControllerUnpublishVolume(
	_ context.Context, request *csi.ControllerUnpublishVolumeRequest,
) (*csi.ControllerUnpublishVolumeResponse, error) {
	return &csi.ControllerUnpublishVolumeResponse{}, said("detach", request.VolumeId, nil)
}

// The node

func (p plugin) NodeGetCapabilities(
	context.Context, *csi.NodeGetCapabilitiesRequest,
) (*csi.NodeGetCapabilitiesResponse, error) {
	answer := &csi.NodeGetCapabilitiesResponse{}
	if p.storage != "" {
		rpc := &csi.NodeServiceCapability_RPC{
			Type: csi.NodeServiceCapability_RPC_STAGE_UNSTAGE_VOLUME,
		}
		answer.Capabilities = []*csi.NodeServiceCapability{
			{Type: &csi.NodeServiceCapability_Rpc{Rpc: rpc}},
		}
	}
	return answer, nil
}

func (plugin) NodeGetInfo(
	context.Context, *csi.NodeGetInfoRequest,
) (*csi.NodeGetInfoResponse, error) {
	return &csi.NodeGetInfoResponse{NodeId: "test", MaxVolumesPerNode: 8}, nil
}

func (p plugin) NodeStageVolume(
	_ context.Context, request *csi.NodeStageVolumeRequest,
) (*csi.NodeStageVolumeResponse, error) {
	err := bind(p.directory(request.VolumeId), request.StagingTargetPath)
	return &csi.NodeStageVolumeResponse{}, said("stage", request.VolumeId, err)
}

func (plugin) NodeUnstageVolume(
	_ context.Context, request *csi.NodeUnstageVolumeRequest,
) (*csi.NodeUnstageVolumeResponse, error) {
	err := unbind(request.StagingTargetPath)
	return &csi.NodeUnstageVolumeResponse{}, said("unstage", request.VolumeId, err)
}

func (plugin) NodePublishVolume(
	_ context.Context, request *csi.NodePublishVolumeRequest,
) (*csi.NodePublishVolumeResponse, error) {
	err := bind(request.StagingTargetPath, request.TargetPath)
	return &csi.NodePublishVolumeResponse{}, said("publish", request.VolumeId, err)
}

func (plugin) NodeUnpublishVolume(
	_ context.Context, request *csi.NodeUnpublishVolumeRequest,
) (*csi.NodeUnpublishVolumeResponse, error) {
	err := unbind(request.TargetPath)
	return &csi.NodeUnpublishVolumeResponse{}, said("unpublish", request.VolumeId, err)
}

func (p plugin) directory(volume string) string {
	return filepath.Join(p.storage, filepath.Base(volume))
}

func bind(source, target string) error {
	if err := os.MkdirAll(target, 0o777); err != nil {
		return err
	}
	return unix.Mount(source, target, "", unix.MS_BIND, "")
}

func unbind(target string) error {
	if err := unix.Unmount(target, 0); err != nil && err != unix.EINVAL && err != unix.ENOENT {
		return err
	}
	if err := os.Remove(target); err != nil && !os.IsNotExist(err) {
		return err
	}
	return nil
}

// said prints the call and returns its error as gRPC's.
func said(call, volume string, err error) error {
	fmt.Println(call, volume, err)
	if err != nil {
		return status.Error(codes.Internal, err.Error())
	}
	return nil
}

func main() {
	if _, err := os.Lstat(os.Args[2]); err != nil {
		fmt.Println("the host's node is not there:", err)
	} else {
		fmt.Println("the host's node is there")
	}
	served := plugin{}
	if len(os.Args) > 3 {
		served.storage = os.Args[3]
	}
	listener, err := net.Listen("unix", os.Args[1])
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	server := grpc.NewServer()
	csi.RegisterIdentityServer(server, served)
	csi.RegisterControllerServer(server, served)
	csi.RegisterNodeServer(server, served)
	if err := server.Serve(listener); err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
}
