"""Every field of every kind has Calico's name in JSON."""

from __future__ import annotations

import pytest

from weft.model.bgp import BGPConfigurationSpec, BGPFilterRuleV4, BGPFilterSpec, BGPPeerSpec, FilterOperation
from weft.model.endpoint import HostEndpointSpec, WorkloadEndpointPort, WorkloadEndpointSpec
from weft.model.felix_configuration import FelixConfigurationSpec
from weft.model.ipam import AffinityValue, Attribute, BlockValue, HandleValue, IPAMConfigValue
from weft.model.node import ClusterInformationSpec, NodeBGPSpec, NodeSpec
from weft.model.policy import EntityRule, GlobalNetworkPolicySpec, NetworkPolicySpec, ProfileSpec, Rule, TierSpec
from weft.model.pool import IPAMConfigurationSpec, IPPoolSpec, IPReservationSpec
from weft.model.wire import shape_of

# The field names of Calico 3.32.1's API types.
NAMES: dict[type, str] = {
    BGPConfigurationSpec: (
        "logSeverityScreen nodeToNodeMeshEnabled asNumber serviceLoadBalancerIPs serviceExternalIPs "
        "serviceClusterIPs serviceLoadBalancerAggregation communities prefixAdvertisements listenPort "
        "nodeMeshPassword nodeMeshMaxRestartTime bindMode ignoredInterfaces localWorkloadPeeringIPV4 "
        "localWorkloadPeeringIPV6 programClusterRoutes ipv4NormalRoutePriority ipv6NormalRoutePriority"
    ),
    BGPPeerSpec: (
        "node nodeSelector peerIP asNumber localASNumber peerSelector keepOriginalNextHop nextHopMode "
        "password sourceAddress maxRestartTime keepaliveTime numAllowedLocalASNumbers ttlSecurity "
        "reachableBy filters localWorkloadSelector reversePeering"
    ),
    BGPFilterSpec: "exportV4 importV4 exportV6 importV6",
    BGPFilterRuleV4: (
        "cidr prefixLength source interface matchOperator peerType communities asPathPrefix priority action operations"
    ),
    FilterOperation: "addCommunity prependASPath setPriority",
    HostEndpointSpec: "node interfaceName expectedIPs profiles ports",
    WorkloadEndpointSpec: (
        "orchestrator workload node containerID pod endpoint serviceAccountName ipNetworks ipNATs "
        "ipv4Gateway ipv6Gateway profiles interfaceName mac ports allowSpoofedSourcePrefixes qosControls"
    ),
    WorkloadEndpointPort: "name protocol port hostPort hostIP",
    FelixConfigurationSpec: (
        "nodeSelector useInternalDataplaneDriver dataplaneDriver dataplaneWatchdogTimeout ipv6Support "
        "routeRefreshInterval interfaceRefreshInterval iptablesRefreshInterval "
        "iptablesPostWriteCheckInterval iptablesLockProbeInterval featureDetectOverride featureGates "
        "ipsetsRefreshInterval maxIpsetSize iptablesBackend xdpRefreshInterval netlinkTimeout "
        "metadataAddr metadataPort openstackRegion interfacePrefix interfaceExclude chainInsertMode "
        "defaultEndpointToHostAction iptablesFilterAllowAction iptablesMangleAllowAction "
        "iptablesFilterDenyAction logPrefix logActionRateLimit logActionRateLimitBurst logFilePath "
        "logSeverityFile logSeverityScreen logSeveritySys logDebugFilenameRegex ipipEnabled ipipMTU "
        "vxlanEnabled vxlanMTU vxlanMTUV6 vxlanPort vxlanVNI allowVXLANPacketsFromWorkloads "
        "allowIPIPPacketsFromWorkloads reportingInterval reportingTTL endpointReportingEnabled "
        "endpointReportingDelay endpointStatusPathPrefix iptablesMarkMask disableConntrackInvalidCheck "
        "healthEnabled healthHost healthPort healthTimeoutOverrides prometheusMetricsEnabled "
        "prometheusMetricsHost prometheusMetricsPort prometheusGoMetricsEnabled "
        "prometheusProcessMetricsEnabled prometheusWireGuardMetricsEnabled prometheusMetricsCAFile "
        "prometheusMetricsCertFile prometheusMetricsKeyFile prometheusMetricsClientAuth "
        "failsafeInboundHostPorts failsafeOutboundHostPorts kubeNodePortRanges policySyncPathPrefix "
        "usageReportingEnabled usageReportingInitialDelay usageReportingInterval natPortRange "
        "natOutgoingAddress natOutgoingExclusions deviceRouteSourceAddress deviceRouteSourceAddressIPv6 "
        "deviceRouteProtocol removeExternalRoutes programClusterRoutes ipForwarding externalNodesList "
        "debugMemoryProfilePath debugDisableLogDropping debugSimulateCalcGraphHangAfter "
        "debugSimulateDataplaneHangAfter debugSimulateDataplaneApplyDelay debugHost debugPort "
        "iptablesNATOutgoingInterfaceFilter sidecarAccelerationEnabled xdpEnabled genericXDPEnabled "
        "nftablesMode nftablesRefreshInterval nftablesFilterAllowAction nftablesMangleAllowAction "
        "nftablesFilterDenyAction nftablesMarkMask bpfEnabled bpfDisableUnprivileged bpfJITHardening "
        "bpfLogLevel bpfConntrackLogLevel bpfConntrackMode bpfConntrackTimeouts bpfLogFilters "
        "bpfCTLBLogFilter bpfDataIfacePattern bpfL3IfacePattern bpfConnectTimeLoadBalancingEnabled "
        "bpfConnectTimeLoadBalancing bpfHostNetworkedNATWithoutCTLB bpfExternalServiceMode "
        "bpfDSROptoutCIDRs bpfExtToServiceConnmark bpfKubeProxyIptablesCleanupEnabled "
        "bpfKubeProxyMinSyncPeriod bpfKubeProxyHealthzPort bpfPSNATPorts bpfMapSizeNATFrontend "
        "bpfMapSizeNATBackend bpfMapSizeNATAffinity bpfMapSizeRoute bpfMapSizeConntrack "
        "bpfMapSizePerCpuConntrack bpfMapSizeConntrackScaling bpfMapSizeConntrackCleanupQueue "
        "bpfMapSizeIPSets bpfMapSizeIfState bpfHostConntrackBypass bpfEnforceRPF bpfPolicyDebugEnabled "
        "bpfForceTrackPacketsFromIfaces bpfDisableGROForIfaces bpfExcludeCIDRsFromNAT "
        "bpfExportBufferSizeMB istioAmbientMode istioDSCPMark cgroupV2Path flowLogsPolicyEvaluationMode "
        "bpfRedirectToPeer bpfAttachType flowLogsFlushInterval flowLogsCollectorDebugTrace "
        "flowLogsGoldmaneServer flowLogsLocalReporter bpfProfiling routeSource routeTableRanges "
        "routeTableRange routeSyncDisabled ipv4NormalRoutePriority ipv4ElevatedRoutePriority "
        "ipv6NormalRoutePriority ipv6ElevatedRoutePriority liveMigrationRouteConvergenceTime "
        "wireguardEnabled wireguardEnabledV6 wireguardThreadingEnabled wireguardListeningPort "
        "wireguardListeningPortV6 wireguardRoutingRulePriority wireguardInterfaceName "
        "wireguardInterfaceNameV6 wireguardMTU wireguardMTUV6 wireguardHostEncryptionEnabled "
        "wireguardKeepAlive awsSrcDstCheck serviceLoopPrevention workloadSourceSpoofing mtuIfacePattern "
        "floatingIPs windowsManageFirewallRules goGCThreshold goMemoryLimitMB goMaxProcs requireMTUFile "
        "bpfMaglevMaxEndpointsPerService bpfMaglevMaxServices"
    ),
    BlockValue: (
        "cidr affinity affinity_claim_time allocations unallocated attributes sequenceNumber "
        "sequenceNumberForAllocation deleted hostAffinity"
    ),
    Attribute: "handle_id secondary alternateOwnerAttrs",
    AffinityValue: "state deleted",
    HandleValue: "block deleted",
    IPAMConfigValue: "strict_affinity auto_allocate_blocks maxBlocksPerHost kubeVirtVMAddressPersistence",
    NodeSpec: (
        "bgp ipv4VXLANTunnelAddr vxlanTunnelMACAddr ipv6VXLANTunnelAddr vxlanTunnelMACAddrV6 orchRefs "
        "wireguard addresses interfaces"
    ),
    NodeBGPSpec: "asNumber ipv4Address ipv6Address ipv4IPIPTunnelAddr routeReflectorClusterID",
    ClusterInformationSpec: "clusterGUID clusterType calicoVersion datastoreReady variant",
    EntityRule: "nets selector namespaceSelector services ports notNets notSelector notPorts serviceAccounts",
    Rule: "action ipVersion protocol icmp notProtocol notICMP source destination http metadata",
    NetworkPolicySpec: "tier order ingress egress selector types serviceAccountSelector performanceHints",
    GlobalNetworkPolicySpec: (
        "tier order ingress egress selector types doNotTrack preDNAT applyOnForward "
        "serviceAccountSelector namespaceSelector performanceHints"
    ),
    ProfileSpec: "ingress egress labelsToApply",
    TierSpec: "order defaultAction",
    IPPoolSpec: (
        "cidr vxlanMode ipipMode natOutgoing disabled disableBGPExport blockSize nodeSelector "
        "namespaceSelector allowedUses assignmentMode"
    ),
    IPReservationSpec: "reservedCIDRs",
    IPAMConfigurationSpec: "strictAffinity maxBlocksPerHost autoAllocateBlocks kubeVirtVMAddressPersistence",
}


@pytest.mark.parametrize(("cls", "names"), NAMES.items(), ids=lambda value: getattr(value, "__name__", ""))
def test_the_fields_of_a_class_are_calicos(cls: type, names: str) -> None:
    assert sorted(shape_of(cls).fields) == sorted(names.split())
