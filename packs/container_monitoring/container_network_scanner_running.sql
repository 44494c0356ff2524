-- description: A network scanner is running in a container now: a process whose name is a scanner's, or whose
--   arguments are (an address range with ports or a scan type, or options that only scanners have).
-- strategy: ADS-0001
-- interval: 60
-- platform: linux
-- severity: high
-- false_positives: Scans that you run yourself from a container, and images for network troubleshooting while
--   somebody works in them. Sandboxes with a PID namespace of their own (browsers, bwrap) count as containers.
-- removed: false
SELECT
  p.pid,
  p.name,
  p.path,
  p.cmdline,
  p.cwd,
  p.uid,
  p.parent,
  parent.name AS parent_name,
  parent.cmdline AS parent_cmdline,
  p.start_time,
  p.cgroup_path,
  ns.pid_namespace,
  ns.mnt_namespace,
  ns.net_namespace
FROM processes AS p
CROSS JOIN process_namespaces AS ns ON ns.pid = p.pid
CROSS JOIN process_namespaces AS init ON init.pid = 1
LEFT JOIN processes AS parent ON parent.pid = p.parent
WHERE (
    ns.pid_namespace <> init.pid_namespace
    OR ns.cgroup_namespace <> init.cgroup_namespace
    OR p.cgroup_path LIKE '%/docker/%'
    OR p.cgroup_path LIKE '%/docker-%.scope%'
    OR p.cgroup_path LIKE '%kubepods%'
    OR (p.cgroup_path LIKE '%/libpod-%' AND p.cgroup_path NOT LIKE '%/libpod-conmon-%')
  )
  AND (
    p.name IN (
      'nmap', 'nping', 'masscan', 'zmap', 'zgrab', 'zgrab2', 'rustscan', 'naabu', 'fscan', 'pnscan',
      'unicornscan', 'scanrand', 'hping3', 'hping2', 'fping', 'arp-scan', 'netdiscover', 'nbtscan',
      'onesixtyone', 'ike-scan', 'sslscan', 'massdns', 'dnsrecon', 'dnsenum', 'dnsmap', 'dnsx', 'fierce',
      'kube-hunter'
    )
    OR p.cmdline LIKE '% --top-ports%'
    OR p.cmdline LIKE '% --min-rate%'
    OR p.cmdline LIKE '% --min-hostgroup%'
    OR p.cmdline LIKE '% --osscan-guess%'
    OR p.cmdline LIKE '% --randomize-hosts%'
    OR (
      (
        p.cmdline GLOB '* -p[0-9-]*'
        OR p.cmdline GLOB '* -p [0-9-]*'
        OR p.cmdline GLOB '* --ports[ =][0-9]*'
        OR p.cmdline GLOB '* --rate[ =][0-9]*'
        OR p.cmdline GLOB '* -s[STUAWMNFXYZOn] *'
        OR p.cmdline GLOB '* -Pn *'
      )
      -- an address block up to /30, or a range such as 10.0.0.1-254
      AND regex_match(
        SUBSTR(p.cmdline, 1, 4096),
        '(^|[ =,])([0-9]{1,3}[.]){3}[0-9]{1,3}(/([0-9]|[12][0-9]|30)|-[0-9]{1,3})([ ,]|$)',
        0
      ) IS NOT NULL
    )
  );
