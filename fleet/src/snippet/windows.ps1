# netflash for the DHCP server of Windows: run this in a PowerShell of an
# administrator, once for each scope.
$scope = '@NETWORK@'
$server = '@SERVER@'

function Add-Netflash($name, $kind, $data, $order, $options) {
    if (-not (Get-DhcpServerv4Class -Name $name -ErrorAction SilentlyContinue)) {
        Add-DhcpServerv4Class -Name $name -Type $kind -Data $data
    }
    if ($kind -eq 'User') {
        Add-DhcpServerv4Policy -ScopeId $scope -Name $name -ProcessingOrder $order -Condition Or -UserClass EQ, $name
    } else {
        # What follows the processor in the vendor class differs by firmware.
        Add-DhcpServerv4Policy -ScopeId $scope -Name $name -ProcessingOrder $order -Condition Or -VendorClass EQ, "$name*"
    }
    foreach ($id in $options.Keys) {
        Set-DhcpServerv4OptionValue -ScopeId $scope -PolicyName $name -OptionId $id -Value $options[$id]
    }
}

if (-not (Get-DhcpServerv4OptionDefinition -OptionId 60 -ErrorAction SilentlyContinue)) {
    Add-DhcpServerv4OptionDefinition -OptionId 60 -Name 'Vendor class' -Type String
}
# A machine that is iPXE already must not load iPXE again: this one comes first.
Add-Netflash 'netflash iPXE' 'User' 'iPXE' 1 @{ 66 = $server; 67 = 'http://@HTTP@/boot/start.ipxe' }
Add-Netflash 'netflash BIOS' 'Vendor' 'PXEClient:Arch:00000' 2 @{ 66 = $server; 67 = '@BIOS@' }
Add-Netflash 'netflash UEFI' 'Vendor' 'PXEClient:Arch:00007' 3 @{ 66 = $server; 67 = '@UEFI@' }
Add-Netflash 'netflash UEFI 9' 'Vendor' 'PXEClient:Arch:00009' 4 @{ 66 = $server; 67 = '@UEFI@' }
Add-Netflash 'netflash HTTP' 'Vendor' 'HTTPClient:Arch:00016' 5 @{ 60 = 'HTTPClient'; 67 = 'http://@HTTP@/boot/@UEFI@' }
